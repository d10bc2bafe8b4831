/* A trivial server that answers and forwards without storing: what the load client can drive. */
#ifndef CEILING_H
#define CEILING_H

#include "wire.h"

#include <sys/types.h>

/* What it does wrong with one message of a hundred, so that it can be seen whether we notice. */
enum fault { NO_FAULT, TWICE, SWAPPED, LOST };

pid_t start_ceiling(const struct user *users, size_t count, enum fault);
#endif

/* A trivial server that answers and forwards without storing: what the load client can drive. */
#ifndef CEILING_H
#define CEILING_H

#include "wire.h"

#include <sys/types.h>

pid_t start_ceiling(const struct user *users, size_t count);
#endif

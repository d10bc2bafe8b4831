/* Contents of messages: random bytes, which a server that checks envelopes takes for one.
 *
 * Such a content has what a server can see of an envelope (docs/crypto.md, section 2), with a wrap
 * for the recipient and one for the sender, as clients seal it.
 */
#ifndef CONTENTS_H
#define CONTENTS_H

#include "wire.h"

struct id {
    uint64_t high, low; /* the halves of a UUID */
};

size_t content_letters(size_t bytes);
void write_content(char *text, size_t bytes, const struct user *sender,
                   const struct user *recipient);
void write_content_id(char *text, struct id); /* an envelope is for one message */
#endif

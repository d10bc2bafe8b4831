/* See contents.h. */
#include "contents.h"

#include <stdlib.h>
#include <string.h>

enum {
    VERSION_AND_SUITE = 0x0101,
    SENDER_AT = 2 + 16, /* after these two and the id */
    WRAPS_AT = SENDER_AT + KID_BYTES + 1,
    WRAP_BYTES = KID_BYTES + 32 + 48,
    LEAST_BYTES = WRAPS_AT + 2 * WRAP_BYTES + 12 + 16, /* nonce, tag, and nothing sealed */
};

size_t content_letters(size_t bytes) { return (bytes * 8 + 5) / 6; }

static void write_letters(char *at, uint64_t value, int letters) {
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (int i = letters - 1; i >= 0; i--, value >>= 6) at[i] = alphabet[value & 63];
}

static void write_base64url(char *text, const unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i += 3, text += 4) {
        unsigned char three[3] = {0};
        char four[4];
        size_t some = count - i < 3 ? count - i : 3;
        memcpy(three, bytes + i, some);
        write_letters(four, (uint64_t)(three[0] << 16 | three[1] << 8 | three[2]), 4);
        memcpy(text, four, content_letters(some));
    }
}

static void lay_out(unsigned char *bytes, const struct user *sender,
                    const struct user *recipient) {
    memcpy(bytes + SENDER_AT, sender->kid, KID_BYTES);
    bytes[WRAPS_AT - 1] = 2;
    memcpy(bytes + WRAPS_AT, recipient->kid, KID_BYTES);
    memcpy(bytes + WRAPS_AT + WRAP_BYTES, sender->kid, KID_BYTES);
}

void write_content(char *text, size_t count, const struct user *sender,
                   const struct user *recipient) {
    unsigned char *bytes = must(malloc(count));
    for (size_t i = 0; i < count; i++) bytes[i] = (unsigned char)(random() >> 8);
    if (server.checks_envelopes) {
        if (count < LEAST_BYTES) die("an envelope has %d bytes at least", LEAST_BYTES);
        lay_out(bytes, sender, recipient);
    }
    write_base64url(text, bytes, count);
    free(bytes);
}

/* What an envelope begins with is 18 bytes, and 24 letters that no other byte has a part in. */
void write_content_id(char *text, struct id id) {
    write_letters(text, (uint64_t)VERSION_AND_SUITE << 32 | id.high >> 32, 8);
    write_letters(text + 8, id.high << 16 | id.low >> 48, 8);
    write_letters(text + 16, id.low, 8);
}

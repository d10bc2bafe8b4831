/* WebSockets over loopback for a load client: many connections, one thread, one epoll.
 *
 * Frames are gathered until the read that caused them has been dealt with, then written at once.
 * What a read brought is handed out frame by frame, then `read_ended` is called. A mask of zeros is
 * a mask, so nothing is masked in fact.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum phase { CLOSED, CONNECTING, UPGRADING, OPENING, OPEN, CLOSING };

#define KID_BYTES 8

struct user {
    char *id;
    char *token;
    unsigned char kid[KID_BYTES]; /* the short name of the user's public key */
};

struct buffer {
    char *bytes;
    size_t used, size;
};

struct connection {
    int fd;
    enum phase phase;
    const struct user *user;
    struct buffer in, out;
    struct connection *next_dirty;
    bool is_dirty, waits_to_write, has_deflate;
    uint64_t told_seq, acked_seq; /* the newest entry that came, and the newest acknowledged */
    unsigned flow;
    int64_t newest_number; /* of the messages that came, to see that their order holds */
};

/* What the server at the other end is like. */
struct server {
    uint16_t port;
    bool is_socketio;      /* Engine.IO packets around every event */
    bool wants_acks;       /* its mailboxes move on by the client's acks */
    bool checks_envelopes; /* it refuses what does not look like one */
    bool offers_deflate;   /* what we offer, as browsers do */
};

/* What a mode does with what happens. */
struct listener {
    void (*opened)(struct connection *);
    void (*text)(struct connection *, const char *text, size_t length);
    void (*read_ended)(struct connection *);
    void (*gone)(struct connection *, const char *why);
};

extern struct server server;
extern struct listener listener;
extern double now; /* seconds on the monotonic clock, as of the last wake-up */

void wire_prepare(void);
double read_clock(void);
void open_connection(struct connection *, const struct user *);
void open_all(struct connection *, const struct user *, size_t count);
void say_goodbye(struct connection *);
void drop(struct connection *, const char *why);
void write_text(struct connection *, const char *text, size_t length);
void write_event(struct connection *, const char *name, const char *json, size_t length);
void write_ack(struct connection *);
void turn(double seconds);
void watch(int fd);
void unwatch(int fd);
bool watched_is_readable(void);
void adopt(struct connection *, int fd, enum phase);

const char *member(const char *text, size_t length, const char *name);
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *must(void *allocated);
#endif

/* Messages on their way: who sends to whom, what was answered, what arrived, and how late. */
#ifndef MESSAGES_H
#define MESSAGES_H

#include "wire.h"

/* A sender, and the recipients that it writes to in turn. */
struct flow {
    struct connection *sender, *recipients;
    size_t recipient_count;
    struct message *messages; /* by number, which is part of a message's id */
    uint64_t sent, answered, room;
    char *ends; /* of frames, from after the recipient's name on: one for each recipient */
};

struct message {
    double due;                     /* when it was sent, or should have been */
    float accepted_ms, delivered_ms; /* after that; negative: not yet */
};

struct tally {
    uint64_t sent, accepted, delivered, duplicates, order_breaks, foreign, errors, lost_connections;
    char first_error[160];
    double measured_from, measured_to; /* only this part counts for rates and latencies */
    uint64_t accepted_measured, delivered_measured;
    double cpu_seconds;
};

extern struct tally tally;
extern struct flow *flows;
extern size_t flow_count;
extern double stops_at; /* an answer makes room for another message until then */

void flows_prepare(size_t count, size_t content_bytes);
void connect_flows(struct connection *, const struct user *, size_t recipients);
void send_message(struct flow *, double due);
void message_text(struct connection *, const char *text, size_t length);
void message_gone(struct connection *, const char *why);
bool everything_has_arrived(void);
void note_error(const char *text, size_t length);
void print_result(double seconds);
double own_cpu_seconds(void);
#endif

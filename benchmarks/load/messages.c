/* See messages.h. */
#include "messages.h"

#include "contents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define ID_LENGTH 36
#define MOST_FLOWS 4096 /* an id has twelve bits for it */

struct tally tally;
struct flow *flows;
size_t flow_count;
double stops_at;

static const char DIGITS[] = "0123456789abcdef";
static const char BEFORE_CONTENT[] = "\",\"encrypted_content\":\"", AFTER_CONTENT[] = "\"}";
static double wall_offset; /* from our clock to the time of day */
static size_t content_bytes, end_length;

double own_cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* A frame from after the recipient's name on. */
static void write_end(char *end, const struct user *sender, const struct user *recipient) {
    size_t before = sizeof BEFORE_CONTENT - 1, letters = content_letters(content_bytes);
    memcpy(end, BEFORE_CONTENT, before);
    write_content(end + before, content_bytes, sender, recipient);
    memcpy(end + before + letters, AFTER_CONTENT, sizeof AFTER_CONTENT - 1);
}

void flows_prepare(size_t count, size_t bytes) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    wall_offset = (double)time.tv_sec + (double)time.tv_nsec / 1e9 - read_clock();
    if (count > MOST_FLOWS) die("at most %d senders", MOST_FLOWS);
    srandom((unsigned)getpid());
    flow_count = count;
    flows = must(calloc(count, sizeof *flows));
    content_bytes = bytes;
    end_length = sizeof BEFORE_CONTENT - 1 + content_letters(bytes) + sizeof AFTER_CONTENT - 1;
}

/* Each sender's connection is followed by those of its recipients. */
void connect_flows(struct connection *connections, const struct user *users, size_t recipients) {
    size_t each = 1 + recipients;
    for (size_t i = 0; i < flow_count * each; i++) {
        connections[i].flow = (unsigned)(i / each);
        connections[i].newest_number = -1;
    }
    for (size_t i = 0; i < flow_count; i++) {
        flows[i].sender = &connections[i * each];
        flows[i].recipients = &connections[i * each + 1];
        flows[i].recipient_count = recipients;
        flows[i].ends = must(malloc(recipients * end_length));
        const struct user *sender = &users[i * each], *recipient = sender + 1;
        for (size_t n = 0; n < recipients; n++)
            write_end(flows[i].ends + n * end_length, sender, recipient + n);
    }
    open_all(connections, users, flow_count * each);
}

/* Ids are UUIDs of version 7: the time, then this process, the flow, and the message's number. */
static struct id make_id(unsigned flow, uint64_t number) {
    uint64_t milliseconds = (uint64_t)((now + wall_offset) * 1000);
    uint64_t process = (uint64_t)getpid() & 0xfff;
    return (struct id){
        .high = milliseconds << 16 | 0x7000 | process,
        .low = UINT64_C(8) << 60 | (uint64_t)flow << 48 | number,
    };
}

static void write_hex(char *at, uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--, value >>= 4) at[i] = DIGITS[value & 15];
}

static void write_id(char *text, struct id id) {
    memset(text, '-', ID_LENGTH);
    write_hex(text, id.high >> 32, 8);
    write_hex(text + 9, id.high >> 16, 4);
    write_hex(text + 14, id.high, 4);
    write_hex(text + 19, id.low >> 48, 4);
    write_hex(text + 24, id.low, 12);
}

static uint64_t read_hex(const char *at, int digits) {
    uint64_t value = 0;
    for (int i = 0; i < digits; i++)
        value = value << 4 | (uint64_t)(at[i] <= '9' ? at[i] - '0' : at[i] - 'a' + 10);
    return value;
}

/* The message that a frame is about; NULL if it is none of ours. */
static struct message *find_message(const char *text, size_t length, struct flow **flow,
                                    uint64_t *number) {
    const char *id = member(text, length, "id");
    if (id == NULL || *id++ != '"' || text + length < id + ID_LENGTH) return NULL;
    if (read_hex(id + 15, 3) != ((uint64_t)getpid() & 0xfff)) return NULL;
    size_t index = read_hex(id + 20, 3);
    *number = read_hex(id + 24, 12);
    if (index >= flow_count || *number >= flows[index].sent) return NULL;
    *flow = &flows[index];
    return &flows[index].messages[*number];
}

static struct message *new_message(struct flow *flow, double due) {
    if (flow->sent == flow->room) {
        flow->room = flow->room == 0 ? 1024 : 2 * flow->room;
        flow->messages = must(realloc(flow->messages, flow->room * sizeof *flow->messages));
    }
    struct message *message = &flow->messages[flow->sent];
    *message = (struct message){due, -1, -1};
    return message;
}

void send_message(struct flow *flow, double due) {
    static const char before[] = "{\"type\":\"send\",\"id\":\"", between[] = "\",\"to\":\"";
    static char json[1 << 17];
    size_t recipient = flow->sent % flow->recipient_count, at = sizeof before - 1;
    const char *to = flow->recipients[recipient].user->id;
    size_t to_length = strlen(to);
    if (at + ID_LENGTH + sizeof between + to_length + end_length > sizeof json)
        die("a message is too long");
    new_message(flow, due);
    struct id id = make_id(flow->sender->flow, flow->sent);
    memcpy(json, before, at);
    write_id(json + at, id);
    at += ID_LENGTH;
    memcpy(json + at, between, sizeof between - 1);
    at += sizeof between - 1;
    memcpy(json + at, to, to_length);
    at += to_length;
    memcpy(json + at, flow->ends + recipient * end_length, end_length);
    if (server.checks_envelopes) write_content_id(json + at + sizeof BEFORE_CONTENT - 1, id);
    flow->sent++;
    tally.sent++;
    write_event(flow->sender, "send", json, at + end_length);
}

static bool is_measured(double moment) {
    return moment >= tally.measured_from && moment < tally.measured_to;
}

static void take_accepted(const char *text, size_t length) {
    struct flow *flow;
    uint64_t number;
    struct message *message = find_message(text, length, &flow, &number);
    if (message == NULL) {
        tally.foreign++;
        return;
    }
    if (message->accepted_ms >= 0) {
        tally.duplicates++;
        return;
    }
    message->accepted_ms = (float)((now - message->due) * 1000);
    flow->answered++;
    tally.accepted++;
    if (is_measured(now)) tally.accepted_measured++;
    if (now < stops_at) send_message(flow, now);
}

static void take_message(struct connection *connection, const char *text, size_t length) {
    struct flow *flow;
    uint64_t number;
    struct message *message = find_message(text, length, &flow, &number);
    if (message == NULL) {
        tally.foreign++;
        return;
    }
    if (message->delivered_ms >= 0) {
        tally.duplicates++;
        return;
    }
    if ((int64_t)number < connection->newest_number) tally.order_breaks++;
    connection->newest_number = (int64_t)number;
    message->delivered_ms = (float)((now - message->due) * 1000);
    tally.delivered++;
    if (is_measured(now)) tally.delivered_measured++;
}

void note_error(const char *text, size_t length) {
    if (tally.errors++ > 0) return;
    snprintf(tally.first_error, sizeof tally.first_error, "%.*s", (int)length, text);
}

static void take_error(struct connection *connection, const char *text, size_t length) {
    note_error(text, length);
    flows[connection->flow].answered++;
}

/* The position of an entry, so that it can be acknowledged. */
static void note_seq(struct connection *connection, const char *text, size_t length) {
    const char *seq = member(text, length, "seq");
    if (seq == NULL) return;
    uint64_t value = strtoull(seq, NULL, 10);
    if (value > connection->told_seq) connection->told_seq = value;
}

static const char *type_of(const char *text, size_t length) {
    if (server.is_socketio) return length > 4 ? text + 4 : "";
    const char *type = member(text, length, "type");
    return type == NULL || *type != '"' ? "" : type + 1;
}

void message_text(struct connection *connection, const char *text, size_t length) {
    const char *type = type_of(text, length);
    switch (*type) { /* each of these words begins with a letter of its own */
    case 'a': return take_accepted(text, length);
    case 'm': note_seq(connection, text, length); return take_message(connection, text, length);
    case 'r': return note_seq(connection, text, length);
    case 'e':
        if (type[1] == 'r') take_error(connection, text, length);
    }
}

void message_gone(struct connection *connection, const char *why) {
    if (why == NULL) return;
    if (connection->phase == CLOSED && stops_at == 0) die("a connection ended: %s", why);
    tally.lost_connections++;
    note_error(why, strlen(why));
}

bool everything_has_arrived(void) {
    for (size_t i = 0; i < flow_count; i++)
        if (flows[i].answered < flows[i].sent) return false;
    return tally.delivered >= tally.accepted;
}

/* What is printed: one JSON object. */

static int by_size(const void *one, const void *other) {
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

static void print_latency(const char *name, float *values, size_t count) {
    qsort(values, count, sizeof *values, by_size);
    printf(", \"%s_ms\": ", name);
    if (count == 0) {
        printf("null");
        return;
    }
    printf("{\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"max\": %.3f}", values[count / 2],
           values[count * 9 / 10], values[count * 99 / 100], values[count - 1]);
}

static void print_latencies(void) {
    float *accepted = must(malloc((tally.sent + 1) * sizeof *accepted));
    float *delivered = must(malloc((tally.sent + 1) * sizeof *delivered));
    size_t accepted_count = 0, delivered_count = 0;
    for (size_t i = 0; i < flow_count; i++) {
        for (uint64_t n = 0; n < flows[i].sent; n++) {
            struct message *message = &flows[i].messages[n];
            if (!is_measured(message->due)) continue;
            if (message->accepted_ms >= 0) accepted[accepted_count++] = message->accepted_ms;
            if (message->delivered_ms >= 0) delivered[delivered_count++] = message->delivered_ms;
        }
    }
    print_latency("accepted", accepted, accepted_count);
    print_latency("delivered", delivered, delivered_count);
    free(accepted);
    free(delivered);
}

static void print_text(const char *text) {
    putchar('"');
    for (; *text != 0; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        if ((unsigned char)*text >= 0x20 && (unsigned char)*text < 0x7f) putchar(*text);
    }
    putchar('"');
}

void print_result(double seconds) {
    printf("{\"seconds\": %.6f, \"sent\": %llu, \"accepted\": %llu, \"delivered\": %llu, "
           "\"duplicates\": %llu, \"order_breaks\": %llu, \"foreign\": %llu, \"errors\": %llu, "
           "\"lost_connections\": %llu, \"accepted_measured\": %llu, \"delivered_measured\": %llu, "
           "\"client_cpu_seconds\": %.4f, \"first_error\": ",
           seconds, (unsigned long long)tally.sent, (unsigned long long)tally.accepted,
           (unsigned long long)tally.delivered, (unsigned long long)tally.duplicates,
           (unsigned long long)tally.order_breaks, (unsigned long long)tally.foreign,
           (unsigned long long)tally.errors, (unsigned long long)tally.lost_connections,
           (unsigned long long)tally.accepted_measured,
           (unsigned long long)tally.delivered_measured, tally.cpu_seconds);
    print_text(tally.first_error);
    print_latencies();
    printf("}\n");
    fflush(stdout);
}

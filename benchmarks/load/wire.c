/* See wire.h. */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (1 << 20)
#define EVENTS 64
#define OPENING_AT_ONCE 16
#define OPENING_SECONDS 180.0
#define SOURCE_ADDRESSES 60 /* the ports of one would run out while closed connections linger */
#define LOOKED_AT 200       /* bytes of a frame in which its members are sought */

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

struct server server;
struct listener listener;
double now;

static int poller;
static struct connection *dirty;
static char *read_bytes;
static bool watched_has_fired, watched_never_waits;

_Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void *must(void *allocated) {
    if (allocated == NULL) die("out of memory");
    return allocated;
}

double read_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void wire_prepare(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll: %s", strerror(errno));
    read_bytes = must(malloc(READ_BYTES));
    now = read_clock();
}

/* Buffers. */

static void append(struct buffer *buffer, const char *bytes, size_t length) {
    if (buffer->used + length > buffer->size) {
        buffer->size = 2 * (buffer->used + length);
        buffer->bytes = must(realloc(buffer->bytes, buffer->size));
    }
    memcpy(buffer->bytes + buffer->used, bytes, length);
    buffer->used += length;
}

static void release(struct buffer *buffer) {
    free(buffer->bytes);
    *buffer = (struct buffer){0};
}

/* Writing. */

static void await(struct connection *connection, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0) die("epoll: %s", strerror(errno));
}

static void mark_dirty(struct connection *connection) {
    if (connection->is_dirty) return;
    connection->is_dirty = true;
    connection->next_dirty = dirty;
    dirty = connection;
}

static void flush(struct connection *connection) {
    struct buffer *out = &connection->out;
    if (connection->phase == CLOSED || connection->phase == CONNECTING) return;
    ssize_t sent = out->used == 0 ? 0 : send(connection->fd, out->bytes, out->used, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return drop(connection, strerror(errno));
    if (sent > 0) {
        out->used -= (size_t)sent;
        memmove(out->bytes, out->bytes + sent, out->used);
    }
    if ((out->used > 0) == connection->waits_to_write) return;
    connection->waits_to_write = out->used > 0;
    await(connection, EPOLLIN | (connection->waits_to_write ? EPOLLOUT : 0), EPOLL_CTL_MOD);
}

static void flush_dirty(void) {
    while (dirty != NULL) {
        struct connection *connection = dirty;
        dirty = connection->next_dirty;
        connection->is_dirty = false;
        flush(connection);
    }
}

static void write_head(struct connection *connection, int opcode, size_t length) {
    unsigned char head[14] = {(unsigned char)(0x80 | opcode)};
    size_t size = 2;
    if (length < 126) {
        head[1] = (unsigned char)length;
    } else if (length < 65536) {
        head[1] = 126, head[2] = (unsigned char)(length >> 8), head[3] = (unsigned char)length;
        size = 4;
    } else {
        head[1] = 127;
        for (int i = 0; i < 8; i++) head[2 + i] = (unsigned char)((uint64_t)length >> (56 - 8 * i));
        size = 10;
    }
    head[1] |= 0x80;
    append(&connection->out, (char *)head, size + 4); /* the mask is zeros */
}

static void write_frame(struct connection *connection, int opcode, const char *bytes,
                        size_t length) {
    write_head(connection, opcode, length);
    append(&connection->out, bytes, length);
    mark_dirty(connection);
}

void write_text(struct connection *connection, const char *text, size_t length) {
    write_frame(connection, TEXT, text, length);
}

void write_event(struct connection *connection, const char *name, const char *json, size_t length) {
    if (!server.is_socketio) return write_text(connection, json, length);
    char head[32];
    size_t size = (size_t)snprintf(head, sizeof head, "42[\"%s\",", name);
    write_head(connection, TEXT, size + length + 1);
    append(&connection->out, head, size);
    append(&connection->out, json, length);
    append(&connection->out, "]", 1);
    mark_dirty(connection);
}

void write_ack(struct connection *connection) {
    if (!server.wants_acks || connection->told_seq <= connection->acked_seq) return;
    char text[64];
    int length = snprintf(text, sizeof text, "{\"type\":\"ack\",\"seq\":%llu}",
                          (unsigned long long)connection->told_seq);
    connection->acked_seq = connection->told_seq;
    write_event(connection, "ack", text, (size_t)length);
}

/* Coming and going. */

static void write_request(struct connection *connection) {
    const char *path = server.is_socketio ? "/socket.io/?EIO=4&transport=websocket&" : "/api/ws?";
    const char *deflate =
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    char request[4096];
    int length = snprintf(
        request, sizeof request,
        "GET %stoken=%s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
        path, connection->user->token, server.port, server.offers_deflate ? deflate : "");
    if ((size_t)length >= sizeof request) die("a token is too long");
    append(&connection->out, request, (size_t)length);
}

void adopt(struct connection *connection, int fd, enum phase phase) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection->fd = fd;
    connection->phase = phase;
    connection->waits_to_write = phase == CONNECTING;
    connection->has_deflate = false;
    connection->told_seq = connection->acked_seq = 0;
    await(connection, phase == CONNECTING ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_ADD);
}

void open_connection(struct connection *connection, const struct user *user) {
    static unsigned next_source;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) die("socket: %s", strerror(errno));
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f000002 + next_source++ % SOURCE_ADDRESSES);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0) die("bind: %s", strerror(errno));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(server.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int result = connect(fd, (struct sockaddr *)&address, sizeof address);
    if (result < 0 && errno != EINPROGRESS) die("connect: %s", strerror(errno));
    connection->user = user;
    adopt(connection, fd, CONNECTING);
    write_request(connection);
}

void drop(struct connection *connection, const char *why) {
    if (connection->phase == CLOSED) return;
    close(connection->fd);
    connection->phase = CLOSED;
    release(&connection->in);
    release(&connection->out);
    listener.gone(connection, why);
}

void say_goodbye(struct connection *connection) {
    if (connection->phase != OPEN) return;
    connection->phase = CLOSING;
    write_frame(connection, CLOSE, "\x03\xe8", 2);
}

void open_all(struct connection *connections, const struct user *users, size_t count) {
    double gives_up = read_clock() + OPENING_SECONDS;
    size_t begun = 0, open = 0;
    while (open < count) {
        while (begun < count && begun - open < OPENING_AT_ONCE) {
            open_connection(&connections[begun], &users[begun]);
            begun++;
        }
        turn(1.0);
        while (open < begun && connections[open].phase == OPEN) open++;
        if (now > gives_up) die("only %zu of %zu connections are open", open, count);
    }
}

/* Reading. */

const char *member(const char *text, size_t length, const char *name) {
    size_t size = strlen(name);
    const char *end = text + (length < LOOKED_AT ? length : LOOKED_AT);
    for (const char *at = text; (at = memchr(at, '"', (size_t)(end - at))) != NULL; at++) {
        if ((size_t)(end - at) < size + 4) return NULL;
        if (memcmp(at + 1, name, size) != 0 || memcmp(at + 1 + size, "\":", 2) != 0) continue;
        at += size + 3;
        return *at == ' ' ? at + 1 : at;
    }
    return NULL;
}

static void opened(struct connection *connection) {
    connection->phase = OPEN;
    listener.opened(connection);
}

static void take_packet(struct connection *connection, const char *text, size_t length) {
    if (length >= 1 && text[0] == '2') return write_text(connection, "3", 1);
    if (length >= 1 && text[0] == '0') return write_text(connection, "40", 2);
    if (length < 2 || text[0] != '4') return;
    if (text[1] != '2') return;
    bool is_hello = length >= 10 && memcmp(text + 2, "[\"hello\"", 8) == 0;
    if (connection->phase == OPENING && is_hello) return opened(connection);
    if (connection->phase == OPEN) listener.text(connection, text, length);
}

static void take_text(struct connection *connection, const char *text, size_t length) {
    if (server.is_socketio) return take_packet(connection, text, length);
    if (connection->phase == OPENING) return opened(connection);
    if (connection->phase == OPEN) listener.text(connection, text, length);
}

static void take_close(struct connection *connection, const unsigned char *bytes, size_t length) {
    char why[32];
    int code = length < 2 ? 1005 : bytes[0] << 8 | bytes[1];
    snprintf(why, sizeof why, "closed with %d", code);
    drop(connection, connection->phase == CLOSING ? NULL : why);
}

static void take_frame(struct connection *connection, int opcode, const char *bytes,
                       size_t length) {
    switch (opcode) {
    case TEXT: return take_text(connection, bytes, length);
    case PING: return write_frame(connection, PONG, bytes, length);
    case PONG: return;
    case CLOSE: return take_close(connection, (const unsigned char *)bytes, length);
    default: die("the server sent a frame with opcode %d", opcode);
    }
}

/* How long the frame is in all, 0 while that is not known; `start` is where its content begins. */
static size_t frame_size(const unsigned char *bytes, size_t available, size_t *start) {
    if (available < 2) return 0;
    size_t length = bytes[1] & 0x7f, wide = length == 127 ? 8 : length == 126 ? 2 : 0;
    *start = 2 + wide + (bytes[1] & 0x80 ? 4 : 0);
    if (available < *start) return 0;
    if (wide > 0) length = 0;
    for (size_t i = 0; i < wide; i++) length = length << 8 | bytes[2 + i];
    return *start + length;
}

static size_t take_frames(struct connection *connection, const char *bytes, size_t available) {
    size_t at = 0, start;
    while (connection->phase != CLOSED) {
        const unsigned char *frame = (const unsigned char *)bytes + at;
        size_t size = frame_size(frame, available - at, &start);
        if (size == 0 || size > available - at) break;
        if (!(frame[0] & 0x80)) die("the server sent a fragment");
        take_frame(connection, frame[0] & 0x0f, bytes + at + start, size - start);
        at += size;
    }
    return at;
}

static size_t take_answer(struct connection *connection, const char *bytes, size_t available) {
    const char *end = memmem(bytes, available, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    if (available < 12 || memcmp(bytes + 8, " 101", 4) != 0) {
        char why[32];
        snprintf(why, sizeof why, "handshake: %.3s", available < 12 ? "" : bytes + 9);
        drop(connection, why);
        return available;
    }
    size_t size = (size_t)(end - bytes) + 4;
    connection->has_deflate = memmem(bytes, size, "permessage-deflate", 18) != NULL;
    connection->phase = OPENING;
    return size;
}

static void take_bytes(struct connection *connection, const char *bytes, size_t available) {
    size_t at = connection->phase == UPGRADING ? take_answer(connection, bytes, available) : 0;
    if (connection->phase >= OPENING) at += take_frames(connection, bytes + at, available - at);
    if (connection->phase == CLOSED) return;
    listener.read_ended(connection);
    connection->in.used = 0;
    if (at < available) append(&connection->in, bytes + at, available - at);
    else if (connection->in.size > 0) release(&connection->in);
}

static void read_some(struct connection *connection) {
    struct buffer *in = &connection->in;
    size_t kept = in->used;
    if (kept >= READ_BYTES) die("the server sent a frame that is too long");
    if (kept > 0) memcpy(read_bytes, in->bytes, kept);
    ssize_t got = recv(connection->fd, read_bytes + kept, READ_BYTES - kept, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) return drop(connection, strerror(errno));
    if (got == 0) return drop(connection, connection->phase == CLOSING ? NULL : "cut off");
    take_bytes(connection, read_bytes, kept + (size_t)got);
}

static void happened(struct connection *connection, uint32_t events) {
    if (connection->phase == CONNECTING && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) return drop(connection, strerror(error));
        connection->phase = UPGRADING;
    }
    if (events & EPOLLOUT) mark_dirty(connection);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_some(connection);
}

void turn(double seconds) {
    struct epoll_event events[EVENTS];
    flush_dirty();
    int timeout = seconds <= 0 ? 0 : (int)(seconds * 1000) + 1;
    int count = epoll_wait(poller, events, EVENTS, timeout);
    now = read_clock();
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection == NULL) watched_has_fired = true;
        else if (connection->phase != CLOSED) happened(connection, events[i].events);
        flush_dirty();
    }
}

void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0) return;
    if (errno != EPERM) die("epoll: %s", strerror(errno));
    watched_never_waits = true; /* it is a file */
}

bool watched_is_readable(void) {
    bool has_fired = watched_has_fired || watched_never_waits;
    watched_has_fired = false;
    return has_fired;
}

void unwatch(int fd) { epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL); }

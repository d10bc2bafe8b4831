/* See ceiling.h. The users' ids have to end with the number of their line in the file. */
#include "ceiling.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct user *known;
static size_t known_count;
static struct connection *sockets;
static enum fault fault;

/* A message that waits until the next one to the same recipient has gone before it. */
static struct {
    struct connection *to;
    char text[1 << 17];
    size_t length;
} held;

static int listen_on_loopback(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 128) < 0)
        die("listen: %s", strerror(errno));
    getsockname(fd, (struct sockaddr *)&address, &size);
    server.port = ntohs(address.sin_port);
    return fd;
}

/* The number at the end of the id that begins here. */
static size_t number_of(const char *id, const char *end) {
    const char *quote = memchr(id, '"', (size_t)(end - id));
    if (quote == NULL) die("an id does not end");
    const char *digits = quote;
    while (digits > id && digits[-1] >= '0' && digits[-1] <= '9') digits--;
    size_t number = strtoul(digits, NULL, 10);
    if (number >= known_count) die("user %zu is not in the file", number);
    return number;
}

static void forward(struct connection *to, const char *text, size_t length) {
    static uint64_t count;
    bool is_faulty = fault != NO_FAULT && ++count % 100 == 0;
    if (is_faulty && fault == LOST) return;
    if (is_faulty && fault == SWAPPED && held.to == NULL) {
        held.to = to;
        held.length = length;
        memcpy(held.text, text, length);
        return;
    }
    write_text(to, text, length);
    if (is_faulty && fault == TWICE) write_text(to, text, length);
    if (held.to != to) return;
    write_text(to, held.text, held.length);
    held.to = NULL;
}

static void answer(struct connection *connection, const char *text, size_t length) {
    char json[1 << 17];
    const char *id = member(text, length, "id"), *to = member(text, length, "to");
    if (id == NULL || to == NULL) return;
    size_t size = (size_t)snprintf(json, sizeof json, "{\"type\":\"accepted\",\"id\":%.38s}", id);
    write_text(connection, json, size);
    size = (size_t)snprintf(json, sizeof json, "{\"type\":\"message\",\"seq\":1,%.*s",
                            (int)(text + length - id + 5), id - 5);
    forward(&sockets[number_of(to + 1, text + length)], json, size);
}

static void shake_hands(struct connection *connection, int fd) {
    static const char response[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                   "Connection: Upgrade\r\n\r\n";
    if (send(fd, response, sizeof response - 1, MSG_NOSIGNAL) < 0) die("send: %s", strerror(errno));
    adopt(connection, fd, OPEN);
    write_text(connection, "{\"type\":\"hello\"}", 16);
}

/* A request tells whose connection it is. Blocking, since it happens before the measuring. */
static void accept_one(int listening) {
    char head[4096];
    size_t used = 0;
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    while (used < 4 || memcmp(head + used - 4, "\r\n\r\n", 4) != 0) {
        ssize_t got = recv(fd, head + used, sizeof head - 1 - used, 0);
        if (got <= 0) die("no request came");
        used += (size_t)got;
    }
    head[used] = 0;
    char *token = strstr(head, "token="), *end = token == NULL ? NULL : strchr(token, ' ');
    if (end == NULL) die("a request without a token");
    *end = 0;
    for (size_t i = 0; i < known_count; i++)
        if (strcmp(token + 6, known[i].token) == 0) return shake_hands(&sockets[i], fd);
    die("an unknown token");
}

static void ignore(struct connection *connection) { (void)connection; }

static void end(struct connection *connection, const char *why) {
    (void)connection, (void)why;
}

static _Noreturn void serve(int listening) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    wire_prepare();
    listener = (struct listener){ignore, answer, ignore, end};
    watch(listening);
    for (;;) {
        turn(1.0);
        if (watched_is_readable()) accept_one(listening);
    }
}

pid_t start_ceiling(const struct user *users, size_t count, enum fault what) {
    fault = what;
    known = users;
    known_count = count;
    sockets = must(calloc(count, sizeof *sockets));
    int listening = listen_on_loopback();
    pid_t child = fork();
    if (child < 0) die("fork: %s", strerror(errno));
    if (child == 0) serve(listening);
    close(listening);
    return child;
}

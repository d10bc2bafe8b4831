/* The load client of the benchmark: `load MODE --port N --users FILE ...`.
 *
 * It prints `ready` once its connections are open, waits for a line on stdin, prints `measuring`
 * and `measured` where the measured part begins and ends, then one JSON object, and keeps its
 * connections until stdin ends. The file of users has one `id token kid` a line, the kid in hex.
 * With `--envelopes` contents look like envelopes; else all their bytes are random. Modes:
 *
 *   pairs       senders keep `--window` messages unanswered for `--warmup` and `--seconds`
 *   rate        the same at `--rate` messages a second, whatever the server does; latencies count
 *               from the moment that a message was due
 *   fanout      one sender, `--recipients` in turn
 *   drain       `--count` messages wait for a recipient that comes back
 *   idle        all users connect and stay
 *   handshakes  connect, say goodbye, again, `--at-once` at a time
 *   echo        as `pairs`, against a trivial server of its own: what this client could drive;
 *               `--fault twice|swapped|lost` shows whether it sees what goes wrong
 */
#include "ceiling.h"
#include "messages.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

static struct {
    const char *mode, *users_file;
    size_t pairs, window, bytes, recipients, count, at_once;
    double seconds, warmup, rate, patience;
    enum fault fault;
} options = {.pairs = 32, .window = 8, .bytes = 256, .recipients = 100, .count = 10000,
             .at_once = 16, .seconds = 5, .warmup = 1, .rate = 1000, .patience = 30};

static struct user *users;
static size_t user_count;
static struct connection *connections;

static void read_users(void) {
    FILE *file = fopen(options.users_file, "r");
    if (file == NULL) die("%s: %s", options.users_file, strerror(errno));
    char id[256], token[3072], kid[2 * KID_BYTES + 1];
    while (fscanf(file, "%255s %3071s %16s", id, token, kid) == 3) {
        users = must(realloc(users, (user_count + 1) * sizeof *users));
        struct user *user = &users[user_count++];
        *user = (struct user){.id = must(strdup(id)), .token = must(strdup(token))};
        for (size_t i = 0; i < KID_BYTES; i++)
            if (sscanf(kid + 2 * i, "%2hhx", &user->kid[i]) != 1) die("%s has no kid", id);
    }
    fclose(file);
}

static void make_connections(size_t count) {
    if (count > user_count) die("%zu users are needed, the file has %zu", count, user_count);
    connections = must(calloc(count, sizeof *connections));
}

static void say(const char *word) {
    puts(word);
    fflush(stdout);
}

/* Wait for something on stdin, or for its end; pings are answered meanwhile. */
static bool hear_stdin(void) {
    static bool has_ended;
    char bytes[256];
    while (!has_ended && !watched_is_readable()) turn(1.0);
    if (has_ended) return false;
    has_ended = read(STDIN_FILENO, bytes, sizeof bytes) <= 0;
    if (has_ended) unwatch(STDIN_FILENO);
    return !has_ended;
}

static void wait_for_end_of_stdin(void) {
    while (hear_stdin()) continue;
}

/* Messages. */

static void nothing(struct connection *connection) { (void)connection; }

static void begin_measuring(void) {
    double start = read_clock();
    tally.measured_from = start + options.warmup;
    tally.measured_to = tally.measured_from + options.seconds;
}

/* Go on until the time, saying where the measured part begins and ends; `feed` may send. */
static void run_until_measured(void (*feed)(void)) {
    double cpu = 0;
    bool is_measuring = false;
    while (now < tally.measured_to) {
        double next = is_measuring ? tally.measured_to : tally.measured_from;
        turn(next - now);
        if (feed != NULL) feed();
        if (!is_measuring && now >= tally.measured_from) {
            is_measuring = true;
            cpu = own_cpu_seconds();
            say("measuring");
        }
    }
    tally.cpu_seconds = own_cpu_seconds() - cpu;
    say("measured");
}

static void wait_for_the_rest(void) {
    double gives_up = now + options.patience;
    while (!everything_has_arrived() && now < gives_up) turn(0.1);
}

static void run_closed_loop(void) {
    begin_measuring();
    stops_at = tally.measured_to;
    for (size_t i = 0; i < flow_count; i++)
        for (size_t n = 0; n < options.window; n++) send_message(&flows[i], now);
    run_until_measured(NULL);
    wait_for_the_rest();
    print_result(options.seconds);
}

static void prepare_flows(size_t count, size_t recipients) {
    listener = (struct listener){nothing, message_text, write_ack, message_gone};
    make_connections(count * (1 + recipients));
    flows_prepare(count, options.bytes);
}

static void run_pairs(size_t count, size_t recipients) {
    prepare_flows(count, recipients);
    connect_flows(connections, users, recipients);
    say("ready");
    hear_stdin();
    run_closed_loop();
}

/* The open loop. */

static int timer;
static double began;
static uint64_t fed;

static void set_timer(double moment) {
    struct itimerspec at = {.it_value.tv_sec = (time_t)moment};
    at.it_value.tv_nsec = (long)((moment - (double)at.it_value.tv_sec) * 1e9);
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void feed_what_is_due(void) {
    uint64_t ticks;
    double due;
    while ((due = began + (double)fed / options.rate) <= now && due < tally.measured_to)
        send_message(&flows[fed++ % flow_count], due);
    if (watched_is_readable() && read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
        die("timer: %s", strerror(errno));
    set_timer(due);
}

static void run_rate(void) {
    prepare_flows(options.pairs, 1);
    connect_flows(connections, users, 1);
    say("ready");
    hear_stdin();
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(timer);
    begin_measuring();
    stops_at = -1; /* answers make room for nothing */
    began = read_clock();
    feed_what_is_due();
    run_until_measured(feed_what_is_due);
    unwatch(timer);
    wait_for_the_rest();
    print_result(options.seconds);
}

/* A full mailbox. */

static void fill_mailbox(void) {
    struct flow *flow = &flows[0];
    double gives_up = now + 4 * options.patience;
    while (flow->answered < options.count) {
        while (flow->sent < options.count && flow->sent - flow->answered < 64)
            send_message(flow, now);
        turn(1.0);
        if (tally.errors > 0) die("the mailbox could not be filled: %s", tally.first_error);
        if (now > gives_up) die("the mailbox could not be filled in time");
    }
}

static void run_drain(void) {
    prepare_flows(1, 1);
    connect_flows(connections, users, 1);
    stops_at = -1;
    struct connection *recipient = flows[0].recipients;
    say_goodbye(recipient);
    while (recipient->phase != CLOSED) turn(1.0);
    fill_mailbox();
    say("ready");
    hear_stdin();
    double start = tally.measured_from = read_clock(), cpu = own_cpu_seconds();
    tally.measured_to = start + options.patience;
    say("measuring");
    open_connection(recipient, &users[1]);
    while (tally.delivered < options.count && now < tally.measured_to) turn(1.0);
    double seconds = now - start;
    tally.cpu_seconds = own_cpu_seconds() - cpu;
    turn(0); /* the last ack */
    say("measured");
    print_result(seconds);
}

/* Connections that do nothing, or come and go. */

static void idle_text(struct connection *connection, const char *text, size_t length) {
    (void)connection, (void)text, (void)length;
}

static void run_idle(void) {
    server.offers_deflate = true;
    listener = (struct listener){nothing, idle_text, nothing, message_gone};
    make_connections(user_count);
    open_all(connections, users, user_count);
    size_t with_deflate = 0;
    for (size_t i = 0; i < user_count; i++) with_deflate += connections[i].has_deflate;
    stops_at = -1; /* from now on a lost connection is counted */
    say("ready");
    wait_for_end_of_stdin();
    printf("{\"connections\": %zu, \"offered_deflate\": true, \"with_deflate\": %zu, "
           "\"lost_connections\": %llu}\n",
           user_count, with_deflate, (unsigned long long)tally.lost_connections);
    fflush(stdout);
}

static size_t next_user, refused, served, served_measured;

static void handshake_opened(struct connection *connection) {
    served++;
    if (now >= tally.measured_from && now < tally.measured_to) served_measured++;
    say_goodbye(connection);
}

static void handshake_gone(struct connection *connection, const char *why) {
    (void)connection;
    if (why == NULL) return;
    refused++;
    note_error(why, strlen(why));
}

/* Reopened here, and not where they end, so that nothing happens to a connection in between. */
static void reopen(void) {
    for (size_t i = 0; i < options.at_once; i++) {
        if (connections[i].phase != CLOSED) continue;
        open_connection(&connections[i], &users[next_user++ % user_count]);
    }
}

static void run_handshakes(void) {
    listener = (struct listener){handshake_opened, idle_text, nothing, handshake_gone};
    make_connections(options.at_once);
    say("ready");
    hear_stdin();
    begin_measuring();
    reopen();
    run_until_measured(reopen);
    printf("{\"seconds\": %.6f, \"handshakes\": %zu, \"handshakes_measured\": %zu, "
           "\"refused\": %zu, \"client_cpu_seconds\": %.4f, \"first_error\": \"%s\"}\n",
           options.seconds, served, served_measured, refused, tally.cpu_seconds, tally.first_error);
    fflush(stdout);
}

/* The command line. */

static const struct option names[] = {
    {"port", required_argument, NULL, 'p'},      {"users", required_argument, NULL, 'u'},
    {"pairs", required_argument, NULL, 'n'},     {"window", required_argument, NULL, 'w'},
    {"bytes", required_argument, NULL, 'b'},     {"seconds", required_argument, NULL, 's'},
    {"warmup", required_argument, NULL, 'W'},    {"rate", required_argument, NULL, 'r'},
    {"recipients", required_argument, NULL, 'm'}, {"count", required_argument, NULL, 'c'},
    {"at-once", required_argument, NULL, 'a'},   {"patience", required_argument, NULL, 'P'},
    {"fault", required_argument, NULL, 'f'},     {"acks", no_argument, NULL, 'A'},
    {"envelopes", no_argument, NULL, 'E'},       {"socketio", no_argument, NULL, 'S'},
    {0}};

static enum fault fault_named(const char *name) {
    if (strcmp(name, "twice") == 0) return TWICE;
    if (strcmp(name, "swapped") == 0) return SWAPPED;
    if (strcmp(name, "lost") == 0) return LOST;
    die("there is no fault %s", name);
}

static void take_option(int letter) {
    size_t number = optarg == NULL ? 0 : strtoul(optarg, NULL, 10);
    switch (letter) {
    case 'p': server.port = (uint16_t)number; break;
    case 'u': options.users_file = optarg; break;
    case 'n': options.pairs = number; break;
    case 'w': options.window = number; break;
    case 'b': options.bytes = number; break;
    case 's': options.seconds = atof(optarg); break;
    case 'W': options.warmup = atof(optarg); break;
    case 'r': options.rate = atof(optarg); break;
    case 'm': options.recipients = number; break;
    case 'c': options.count = number; break;
    case 'a': options.at_once = number; break;
    case 'P': options.patience = atof(optarg); break;
    case 'f': options.fault = fault_named(optarg); break;
    case 'A': server.wants_acks = true; break;
    case 'E': server.checks_envelopes = true; break;
    case 'S': server.is_socketio = true; break;
    default: exit(2);
    }
}

static void run(const char *mode) {
    if (strcmp(mode, "pairs") == 0) run_pairs(options.pairs, 1);
    else if (strcmp(mode, "rate") == 0) run_rate();
    else if (strcmp(mode, "fanout") == 0) run_pairs(1, options.recipients);
    else if (strcmp(mode, "drain") == 0) run_drain();
    else if (strcmp(mode, "idle") == 0) run_idle();
    else if (strcmp(mode, "handshakes") == 0) run_handshakes();
    else if (strcmp(mode, "echo") == 0) run_pairs(options.pairs, 1);
    else die("there is no mode %s", mode);
}

int main(int count, char **arguments) {
    int letter;
    while ((letter = getopt_long(count, arguments, "", names, NULL)) != -1) take_option(letter);
    if (optind != count - 1 || options.users_file == NULL)
        die("say: load MODE --port N --users FILE");
    const char *mode = arguments[optind];
    signal(SIGPIPE, SIG_IGN);
    read_users();
    pid_t child = strcmp(mode, "echo") == 0 ? start_ceiling(users, user_count, options.fault) : 0;
    wire_prepare();
    watch(STDIN_FILENO);
    run(mode);
    if (child != 0) kill(child, SIGKILL);
    else if (strcmp(mode, "idle") != 0 && strcmp(mode, "handshakes") != 0) wait_for_end_of_stdin();
    return 0;
}

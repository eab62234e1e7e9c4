/* A streaming server with known token times, to measure clients by.
 *
 * One thread, one epoll. A request's arrival is the kernel's receive stamp, not the moment this
 * program got round to reading it. Token k of a stream is due at arrival + ttft + k * gap, on an
 * absolute schedule; what is kept as the truth is the clock just before its send. At the end
 * (SIGTERM, SIGINT) the log is written: for each request its number, its tokens, the arrival and
 * every send, in nanoseconds of CLOCK_MONOTONIC.
 *
 * It answers /v1/completions and /v1/chat/completions, streamed and whole, /v1/models and
 * anything else with 200. It never looks at JSON but for the fields it needs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DIE(what) do { perror(what); exit(1); } while (0)

struct stream { /* one request; kept to the end of the program */
    uint32_t id, tokens, sent;
    int64_t arrival, due;
    int64_t *sends;
    struct conn *conn;
    struct stream *next; /* in its queue */
    int chat, usage;
};

struct conn {
    int fd;
    char *in;
    size_t in_len, in_cap;
    char *out; /* what the socket would not take */
    size_t out_len, out_cap;
    struct stream *stream;
    int closed;
};

struct queue { struct stream *first, *last; };

static struct { int port; double ttft_ms, gap_ms, freeze_at_s, freeze_s; const char *log; } opt =
    { 8900, 50, 20, 0, 0, NULL };
static volatile sig_atomic_t stop;
static int epfd;
static struct queue firsts, nexts;
static struct stream **all;
static size_t all_len, all_cap;
static int64_t offset; /* CLOCK_REALTIME - CLOCK_MONOTONIC */
static int64_t first_arrival;

static void on_stop(int sig) { (void)sig; stop = 1; }

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static int64_t now(void) { return clock_ns(CLOCK_MONOTONIC); }

static void sample_offset(void) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < 5; i++) {
        int64_t a = now(), r = clock_ns(CLOCK_REALTIME), b = now();
        if (b - a < best) { best = b - a; offset = r - (a + (b - a) / 2); }
    }
}

static void push(struct queue *q, struct stream *s) {
    s->next = NULL;
    if (q->last) q->last->next = s; else q->first = s;
    q->last = s;
}
static struct stream *pop(struct queue *q) {
    struct stream *s = q->first;
    q->first = s->next;
    if (!q->first) q->last = NULL;
    return s;
}

static void arm(struct conn *c, uint32_t events, int op) {
    struct epoll_event e = { .events = events, .data.ptr = c };
    if (epoll_ctl(epfd, op, c->fd, &e)) DIE("epoll_ctl");
}

static void hang_up(struct conn *c) {
    if (c->closed) return;
    c->closed = 1;
    close(c->fd);
    c->fd = -1;
}

static void put(struct conn *c, const char *data, size_t len) {
    if (c->closed) return;
    if (!c->out_len) {
        ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);
        if (n == (ssize_t)len) return;
        if (n < 0 && errno != EAGAIN) { hang_up(c); return; }
        if (n > 0) { data += n; len -= n; }
        arm(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
    if (c->out_len + len > c->out_cap) {
        c->out_cap = (c->out_len + len) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
}

static void flush(struct conn *c) {
    ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (n < 0) { if (errno != EAGAIN) hang_up(c); return; }
    memmove(c->out, c->out + n, c->out_len - n);
    c->out_len -= n;
    if (!c->out_len) arm(c, EPOLLIN, EPOLL_CTL_MOD);
}

static size_t chunk(char *to, const char *body, size_t len) {
    size_t n = sprintf(to, "%zx\r\n", len);
    memcpy(to + n, body, len);
    memcpy(to + n + len, "\r\n", 2);
    return n + len + 2;
}

static void send_token(struct stream *s) {
    char body[512], out[2048];
    size_t n = 0;
    int last = s->sent + 1 == s->tokens;
    char reason[40] = "null";
    if (last) sprintf(reason, "\"length\"");
    int len;
    if (s->chat)
        len = sprintf(body, "data: {\"id\":\"c-%u\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\","
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" w%u\"},\"finish_reason\":%s}]}\n\n", s->id, s->sent, reason);
    else
        len = sprintf(body, "data: {\"id\":\"c-%u\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\","
            "\"choices\":[{\"index\":0,\"text\":\" w%u\",\"finish_reason\":%s}]}\n\n", s->id, s->sent, reason);
    n += chunk(out + n, body, len);
    s->sends[s->sent++] = now();
    put(s->conn, out, n);
    if (!last) {
        s->due += (int64_t)(opt.gap_ms * 1e6);
        push(&nexts, s);
        return;
    }
    /* Usage and the end go in a segment of their own, as servers in one loop turn do. */
    n = 0;
    if (s->usage) {
        len = sprintf(body, "data: {\"id\":\"c-%u\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[],"
            "\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":%u,\"total_tokens\":%u}}\n\n", s->id, s->tokens, s->tokens + 8);
        n += chunk(out + n, body, len);
    }
    n += chunk(out + n, "data: [DONE]\n\n", 14);
    memcpy(out + n, "0\r\n\r\n", 5);
    n += 5;
    put(s->conn, out, n);
    s->conn->stream = NULL;
}

static void respond(struct conn *c, const char *type, const char *body) {
    char out[4096];
    int n = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", type, strlen(body), body);
    put(c, out, n);
}

static long number_of(const char *body, const char *key, long otherwise) {
    const char *at = strstr(body, key);
    if (!at) return otherwise;
    at += strlen(key);
    while (*at == ' ' || *at == ':') at++;
    long n = strtol(at, NULL, 10);
    return n > 0 ? n : otherwise;
}

static int is_true(const char *body, const char *key) {
    const char *at = strstr(body, key);
    if (!at) return 0;
    at += strlen(key);
    while (*at == ' ' || *at == ':') at++;
    return !strncmp(at, "true", 4);
}

static void begin(struct conn *c, const char *path, const char *body, int64_t arrival) {
    int chat = !!strstr(path, "/chat/");
    if (!strstr(path, "completions")) {
        if (strstr(path, "/models"))
            respond(c, "application/json", "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"bench\"}]}");
        else respond(c, "application/json", "{}");
        return;
    }
    long tokens = number_of(body, "\"max_completion_tokens\"", number_of(body, "\"max_tokens\"", 16));
    if (!is_true(body, "\"stream\"")) {
        char out[512];
        snprintf(out, sizeof out, "{\"id\":\"c\",\"object\":\"%s\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,%s,\"finish_reason\":\"length\"}],"
            "\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":%ld,\"total_tokens\":%ld}}", chat ? "chat.completion" : "text_completion",
            chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"w\"}" : "\"text\":\"w\"", tokens, tokens + 8);
        respond(c, "application/json", out);
        return;
    }
    struct stream *s = calloc(1, sizeof *s);
    s->sends = malloc(sizeof(int64_t) * tokens);
    s->id = all_len;
    s->tokens = tokens;
    s->arrival = arrival;
    s->due = arrival + (int64_t)(opt.ttft_ms * 1e6);
    s->conn = c;
    s->chat = chat;
    s->usage = is_true(body, "\"include_usage\"");
    if (all_len == all_cap) all = realloc(all, sizeof *all * (all_cap = all_cap ? all_cap * 2 : 4096));
    all[all_len++] = s;
    c->stream = s;
    if (!first_arrival) first_arrival = arrival;
    const char *head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    put(c, head, strlen(head));
    push(&firsts, s);
}

static void on_bytes(struct conn *c, int64_t stamp) {
    for (;;) {
        c->in[c->in_len] = 0;
        char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (!end) return;
        char *length = strcasestr(c->in, "content-length:");
        size_t body = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
        size_t head = end + 4 - c->in;
        if (c->in_len < head + body) return;
        char path[128] = "";
        sscanf(c->in, "%*s %127s", path);
        char keep = c->in[head + body];
        c->in[head + body] = 0;
        begin(c, path, c->in + head, stamp);
        c->in[head + body] = keep;
        memmove(c->in, c->in + head + body, c->in_len - head - body);
        c->in_len -= head + body;
        if (!c->in_len) return;
    }
}

static void on_readable(struct conn *c) {
    for (;;) {
        if (c->in_cap - c->in_len < 65536) c->in = realloc(c->in, (c->in_cap += 65536) + 1);
        char control[128];
        struct iovec v = { c->in + c->in_len, c->in_cap - c->in_len };
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
        ssize_t n = recvmsg(c->fd, &m, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { hang_up(c); return; }
        int64_t stamp = now();
        for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
            if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_TIMESTAMPNS) {
                struct timespec t;
                memcpy(&t, CMSG_DATA(h), sizeof t);
                stamp = t.tv_sec * 1000000000LL + t.tv_nsec - offset;
            }
        c->in_len += n;
        int full = n == (ssize_t)v.iov_len;
        on_bytes(c, stamp);
        if (!full || c->closed) break;
    }
    if (!c->in_len && c->in) { free(c->in); c->in = NULL; c->in_cap = 0; }
}

static void write_log(void) {
    if (!opt.log) return;
    FILE *f = fopen(opt.log, "wb");
    if (!f) DIE("log");
    for (size_t i = 0; i < all_len; i++) {
        struct stream *s = all[i];
        fwrite(&s->id, 4, 1, f);
        fwrite(&s->sent, 4, 1, f);
        fwrite(&s->arrival, 8, 1, f);
        fwrite(s->sends, 8, s->sent, f);
    }
    fclose(f);
}

static void options(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--port")) opt.port = atoi(value);
        else if (!strcmp(name, "--ttft-ms")) opt.ttft_ms = atof(value);
        else if (!strcmp(name, "--gap-ms")) opt.gap_ms = atof(value);
        else if (!strcmp(name, "--freeze-at-s")) opt.freeze_at_s = atof(value); /* after the first arrival */
        else if (!strcmp(name, "--freeze-s")) opt.freeze_s = atof(value);
        else if (!strcmp(name, "--log")) opt.log = value;
        else { fprintf(stderr, "server: unknown option %s\n", name); exit(2); }
    }
}

int main(int argc, char **argv) {
    options(argc, argv);
    signal(SIGTERM, on_stop);
    signal(SIGINT, on_stop);
    struct rlimit files = { 0 };
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on); /* accepted sockets inherit it */
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(opt.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 65535)) DIE("listen");
    epfd = epoll_create1(0);
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };
    epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &e);
    static struct epoll_event events[512];
    int frozen = 0;
    while (!stop) {
        sample_offset();
        int64_t t = now();
        if (opt.freeze_s > 0 && !frozen && first_arrival && t > first_arrival + (int64_t)(opt.freeze_at_s * 1e9)) {
            frozen = 1;
            struct timespec nap = { (time_t)opt.freeze_s, (long)((opt.freeze_s - (time_t)opt.freeze_s) * 1e9) };
            nanosleep(&nap, NULL);
            t = now();
        }
        int budget = 256; /* then look at the sockets again */
        while (budget--) {
            struct queue *q = !firsts.first ? &nexts : !nexts.first ? &firsts : firsts.first->due < nexts.first->due ? &firsts : &nexts;
            if (!q->first || q->first->due > t) break;
            struct stream *s = pop(q);
            if (s->conn->closed) continue;
            send_token(s);
        }
        int64_t due = INT64_MAX;
        if (firsts.first) due = firsts.first->due;
        if (nexts.first && nexts.first->due < due) due = nexts.first->due;
        int64_t wait = due == INT64_MAX ? 100000000 : due - now();
        struct timespec timeout = { 0, wait < 0 ? 0 : wait > 100000000 ? 100000000 : wait };
        int n = epoll_pwait2(epfd, events, 512, &timeout, NULL);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    c = calloc(1, sizeof *c);
                    c->fd = fd;
                    arm(c, EPOLLIN, EPOLL_CTL_ADD);
                }
                continue;
            }
            if (!c->closed && events[i].events & EPOLLOUT) flush(c);
            if (!c->closed && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
        }
    }
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    fprintf(stderr, "server: %zu requests, %.2f s of CPU\n", all_len,
        u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    write_log();
    return 0;
}

/* The floor: the least that a client of many streams must do.
 *
 * One epoll loop of closed-loop users over kept connections: recvmsg with the kernel's stamp,
 * memchr to each event's end, store the stamp. No JSON, no HTTP beyond the end of a body.
 *
 *   floor PORT USERS REQUESTS TOKENS
 *
 * Prints one line of JSON. A client that does all the rest can be set against it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static int cmp(const void *a, const void *b) {
    int64_t x = *(int64_t *)a, y = *(int64_t *)b;
    return x < y ? -1 : x > y;
}
static double at(int64_t *sorted, size_t n, double q) { return n ? sorted[(size_t)(q * (n - 1))] / 1e6 : -1; }

struct user { int fd; int64_t sent; uint32_t events; int64_t *stamps; int done_seen; };

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "floor PORT USERS REQUESTS TOKENS\n"); return 2; }
    int port = atoi(argv[1]), users = atoi(argv[2]), requests = atoi(argv[3]), tokens = atoi(argv[4]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    char body[256], request[512];
    int body_len = sprintf(body, "{\"model\":\"m\",\"prompt\":\"a\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":%d}", tokens);
    int request_len = sprintf(request, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", body_len, body);
    int on = 1, epfd = epoll_create1(0);
    struct user *u = calloc(users, sizeof *u);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int64_t *ttft = malloc(8 * (size_t)requests), *itl = malloc(8 * (size_t)requests * tokens);
    size_t n_ttft = 0, n_itl = 0;
    for (int i = 0; i < users; i++) {
        u[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(u[i].fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
        setsockopt(u[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(u[i].fd, (struct sockaddr *)&a, sizeof a)) { perror("connect"); return 1; }
        struct epoll_event e = { .events = EPOLLIN | EPOLLET, .data.u32 = i };
        epoll_ctl(epfd, EPOLL_CTL_ADD, u[i].fd, &e);
        u[i].stamps = malloc(8 * (tokens + 8));
    }
    int64_t started = clock_ns(CLOCK_MONOTONIC);
    int begun = 0, ended = 0;
    size_t drained = 0;
    for (int i = 0; i < users && begun < requests; i++, begun++) {
        u[i].sent = clock_ns(CLOCK_REALTIME);
        if (send(u[i].fd, request, request_len, 0) != request_len) return 1;
    }
    static struct epoll_event events[512];
    static char buffer[131072];
    while (ended < requests) {
        int n = epoll_wait(epfd, events, 512, 1000);
        for (int k = 0; k < n; k++) {
            struct user *x = &u[events[k].data.u32];
            char control[64];
            struct iovec v = { buffer, sizeof buffer };
            struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
            ssize_t got = recvmsg(x->fd, &m, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) { fprintf(stderr, "floor: a connection ended\n"); return 1; }
            struct timespec t;
            memcpy(&t, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof t);
            int64_t stamp = t.tv_sec * 1000000000LL + t.tv_nsec;
            char *p = buffer, *end = buffer + got;
            while ((p = memchr(p, '\n', end - p))) {
                p++;
                if (p < end && *p == '\n') {
                    if (x->events < (uint32_t)tokens) x->stamps[x->events] = stamp;
                    x->events++;
                }
            }
            if (got >= 5 && !memcmp(end - 5, "0\r\n\r\n", 5)) {
                ttft[n_ttft++] = x->stamps[0] - x->sent;
                for (int i = 1; i < tokens; i++) itl[n_itl++] = x->stamps[i] - x->stamps[i - 1];
                drained += tokens;
                ended++;
                x->events = 0;
                if (begun < requests) {
                    begun++;
                    x->sent = clock_ns(CLOCK_REALTIME);
                    if (send(x->fd, request, request_len, 0) != request_len) return 1;
                }
            }
        }
    }
    double seconds = (clock_ns(CLOCK_MONOTONIC) - started) / 1e9;
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    double cpu = r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
    qsort(ttft, n_ttft, 8, cmp);
    qsort(itl, n_itl, 8, cmp);
    printf("{\"ttft_p50_ms\":%.3f,\"ttft_p99_ms\":%.3f,\"itl_p50_ms\":%.3f,\"itl_p99_ms\":%.3f,\"tok_per_s\":%.0f,"
        "\"cpu_s_per_million\":%.2f,\"rss_kb\":%ld}\n", at(ttft, n_ttft, .5), at(ttft, n_ttft, .99), at(itl, n_itl, .5),
        at(itl, n_itl, .99), drained / seconds, cpu / drained * 1e6, r.ru_maxrss);
    return 0;
}

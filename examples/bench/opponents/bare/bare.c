/* What the kernel alone takes: the system calls that `serve` makes for a response, and nothing else.
 *
 *     cc -O2 -o bare bare.c
 *     bare PORT FILE epoll|io_uring stamps|plain
 *
 * Whatever arrives on a connection of 127.0.0.1 is taken for one request, and is answered with a head and the file.
 * `stamps` asks for, waits for and reads one ACK timestamp a response. A small file goes in one copied call; another
 * by `sendfile(2)`, but for its end, which asks for the stamp (backends/src/sockets/shape.rs and standing.rs, which
 * this has to follow). `io_uring` takes Linux 6.17. It parses nothing, limits nothing and forgives nothing: a floor to measure against, not a server. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/io_uring.h>
#include <linux/net_tstamp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define CONNECTIONS 4096

/* What shape.rs calls JOINED, LARGE, TAIL and LARGE_TAIL. */
#define JOINED (32 << 10)
#define LARGE (512 << 10)
#define TAIL 512
#define LARGE_TAIL (4 << 10)

/* Newer than the headers of some systems: Linux 6.2, 6.6 and 6.17. */
#define OPT_ID_TCP (1 << 16)
#define NO_SQARRAY (1U << 16)
#define TX_TIMESTAMP 4
#define SEND_VECTORIZED (1 << 5)

struct connection {
    size_t sent;
    int responding;
    /* Of those that have had this descriptor, which one: what the ring says late is of another. */
    uint32_t generation;
    struct msghdr message;
    struct iovec parts[2];
    char control[CMSG_SPACE(sizeof(uint32_t))];
};

static struct connection connections[CONNECTIONS];
static char head[256];
static char *body;
/* `by_file` goes by sendfile, out of the body. */
static size_t head_length, body_length, by_file;
static int file, stamps, standing;

static void fail(const char *what) {
    fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long checked(long result, const char *what) {
    if (result < 0) fail(what);
    return result;
}

static int listener(int port) {
    int fd = checked(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket"), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    checked(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
    checked(listen(fd, CONNECTIONS), "listen");
    return fd;
}

static void opened(int fd) {
    if (fd >= CONNECTIONS) {
        errno = EMFILE;
        fail("accept");
    }
    int on = 1;
    int report = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY | OPT_ID_TCP;
    connections[fd].responding = 0;
    connections[fd].generation++;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (standing) report |= SOF_TIMESTAMPING_TX_ACK;
    /* Refused only if the peer has gone already. */
    if (stamps) setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &report, sizeof report);
}

/* The call that sends the response's end: all of it if it is small, for which `serve` has it in memory, too. */
static struct msghdr *last_call(struct connection *c) {
    static char end[LARGE_TAIL];
    size_t from = c->sent < head_length ? 0 : c->sent - head_length, parts = 0;
    if (c->sent < head_length) c->parts[parts++] = (struct iovec){head + c->sent, head_length - c->sent};
    if (by_file) {
        ssize_t length = checked(pread(file, end, body_length - from, from), "pread");
        c->parts[parts++] = (struct iovec){end, length};
    } else {
        c->parts[parts++] = (struct iovec){body + from, body_length - from};
    }
    c->message = (struct msghdr){.msg_iov = c->parts, .msg_iovlen = parts};
    if (stamps && !standing) {
        c->message.msg_control = c->control;
        c->message.msg_controllen = sizeof c->control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&c->message);
        *header = (struct cmsghdr){CMSG_LEN(sizeof(uint32_t)), SOL_SOCKET, SO_TIMESTAMPING};
        uint32_t bits = SOF_TIMESTAMPING_TX_ACK;
        memcpy(CMSG_DATA(header), &bits, sizeof bits);
    }
    return &c->message;
}

/* Goes on with a response until it has been handed over or there is no room; what goes `by_ring` is left to that. */
static void respond(int fd, int by_ring) {
    struct connection *c = &connections[fd];
    while (c->responding && c->sent < head_length + body_length) {
        ssize_t n;
        if (!by_file || c->sent >= head_length + by_file) {
            if (by_ring && !by_file) return;
            n = sendmsg(fd, last_call(c), MSG_DONTWAIT | MSG_NOSIGNAL | (stamps ? MSG_EOR : 0));
        } else if (c->sent < head_length) {
            int more = body_length < LARGE ? MSG_MORE : 0;
            n = send(fd, head + c->sent, head_length - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL | more);
        } else {
            off_t at = c->sent - head_length;
            n = sendfile(fd, file, &at, head_length + by_file - c->sent);
        }
        if (n < 0) return;
        c->sent += n;
    }
    c->responding = 0;
}

static void requested(int fd) {
    connections[fd].sent = 0;
    connections[fd].responding = 1;
}

static void by_epoll(int port) {
    static struct epoll_event events[1024];
    static char input[16 << 10];
    int listening = listener(port), epoll = checked(epoll_create1(0), "epoll_create1");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listening};
    checked(epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event), "epoll_ctl");
    for (;;) {
        int count = epoll_wait(epoll, events, 1024, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd, what = events[i].events;
            if (fd == listening) {
                while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    opened(fd);
                    event = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
                    checked(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
                }
                continue;
            }
            if (what & EPOLLERR) {
                char control[256];
                struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
                recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
            }
            if (what & EPOLLIN) {
                ssize_t n = recv(fd, input, sizeof input, MSG_DONTWAIT);
                if (n > 0) requested(fd);
                if (n == 0 || (n < 0 && errno != EAGAIN)) close(fd);
            }
            respond(fd, 0);
        }
    }
}

#define BUFFERS 4096
#define BUFFER_SIZE 2048
enum operation { ACCEPT, RECEIVE, STAMP, SEND, ROOM };

static struct io_uring_params params;
static int ring;
static unsigned *sq_head, *sq_tail, *cq_head, *cq_tail, sq_mask, cq_mask, to_submit;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;

static void *mapped(size_t size, long offset) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    if (memory == MAP_FAILED) fail("mmap");
    return memory;
}

static void enter(unsigned wait) {
    unsigned flags = IORING_ENTER_GETEVENTS;
    long done = syscall(__NR_io_uring_enter, ring, to_submit, wait, flags, NULL, 0);
    if (done < 0 && errno != EINTR && errno != EBUSY) fail("io_uring_enter");
    if (done > 0) to_submit -= done;
}

static struct io_uring_sqe *operation(enum operation what, int opcode, int fd) {
    while (*sq_tail - __atomic_load_n(sq_head, __ATOMIC_ACQUIRE) == params.sq_entries) enter(0);
    struct io_uring_sqe *sqe = &sqes[*sq_tail & sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcode;
    sqe->fd = fd;
    sqe->user_data = (uint64_t)connections[fd].generation << 32 | (uint64_t)fd << 8 | what;
    __atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_RELEASE);
    to_submit++;
    return sqe;
}

static void receive(int fd) {
    struct io_uring_sqe *sqe = operation(RECEIVE, IORING_OP_RECV, fd);
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
}

static void take_stamps(int fd) {
    struct io_uring_sqe *sqe = operation(STAMP, IORING_OP_URING_CMD, fd);
    sqe->cmd_op = TX_TIMESTAMP;
}

static void respond_by_ring(int fd) {
    struct connection *c = &connections[fd];
    respond(fd, 1);
    if (!c->responding) return;
    if (!by_file) {
        struct msghdr *message = last_call(c);
        struct io_uring_sqe *sqe = operation(SEND, IORING_OP_SEND, fd);
        sqe->addr = (uint64_t)message->msg_iov;
        sqe->len = message->msg_iovlen;
        sqe->ioprio = SEND_VECTORIZED;
        sqe->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | (stamps ? MSG_EOR : 0);
    } else {
        operation(ROOM, IORING_OP_POLL_ADD, fd)->poll32_events = POLLOUT;
    }
}

static void accept_by_ring(int fd) {
    struct io_uring_sqe *sqe = operation(ACCEPT, IORING_OP_ACCEPT, fd);
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->accept_flags = SOCK_NONBLOCK;
}

static void by_io_uring(int port) {
    params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER |
                   IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | NO_SQARRAY;
    params.cq_entries = 16384;
    ring = checked(syscall(__NR_io_uring_setup, 4096, &params), "io_uring_setup");
    char *rings = mapped(params.cq_off.cqes + (size_t)params.cq_entries * 2 * sizeof *cqes, IORING_OFF_SQ_RING);
    sqes = mapped(params.sq_entries * sizeof *sqes, IORING_OFF_SQES);
    cqes = (struct io_uring_cqe *)(rings + params.cq_off.cqes);
    sq_head = (unsigned *)(rings + params.sq_off.head), sq_tail = (unsigned *)(rings + params.sq_off.tail);
    cq_head = (unsigned *)(rings + params.cq_off.head), cq_tail = (unsigned *)(rings + params.cq_off.tail);
    sq_mask = params.sq_entries - 1, cq_mask = params.cq_entries - 1;

    struct io_uring_buf_ring *buffers = aligned_alloc(4096, BUFFERS * sizeof(struct io_uring_buf));
    char *memory = aligned_alloc(4096, BUFFERS * BUFFER_SIZE);
    memset(buffers, 0, BUFFERS * sizeof(struct io_uring_buf));
    struct io_uring_buf_reg group = {.ring_addr = (uint64_t)buffers, .ring_entries = BUFFERS};
    checked(syscall(__NR_io_uring_register, ring, IORING_REGISTER_PBUF_RING, &group, 1), "IORING_REGISTER_PBUF_RING");
    uint16_t lent = 0;
    for (; lent < BUFFERS; lent++) {
        struct io_uring_buf *entry = &buffers->bufs[lent];
        entry->addr = (uint64_t)(memory + lent * BUFFER_SIZE), entry->len = BUFFER_SIZE, entry->bid = lent;
    }
    __atomic_store_n(&buffers->tail, lent, __ATOMIC_RELEASE);

    int listening = listener(port);
    accept_by_ring(listening);
    for (;;) {
        enter(1);
        unsigned at = *cq_head, end = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
        for (; at != end; at++) {
            struct io_uring_cqe *cqe = &cqes[(at & cq_mask) * 2];
            int fd = cqe->user_data >> 8 & 0xffffff, more = cqe->flags & IORING_CQE_F_MORE;
            struct connection *c = &connections[fd];
            int is_late = c->generation != cqe->user_data >> 32;
            switch ((enum operation)(cqe->user_data & 0xff)) {
            case ACCEPT:
                if (cqe->res >= 0) {
                    opened(cqe->res);
                    receive(cqe->res);
                    if (stamps) take_stamps(cqe->res);
                }
                if (!more) accept_by_ring(listening);
                break;
            case RECEIVE:
                if (cqe->flags & IORING_CQE_F_BUFFER) {
                    uint16_t id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
                    struct io_uring_buf *entry = &buffers->bufs[lent++ & (BUFFERS - 1)];
                    entry->addr = (uint64_t)(memory + id * BUFFER_SIZE), entry->len = BUFFER_SIZE, entry->bid = id;
                    __atomic_store_n(&buffers->tail, lent, __ATOMIC_RELEASE);
                }
                if (is_late) break;
                if (cqe->res > 0) {
                    requested(fd);
                    respond_by_ring(fd);
                    if (!more) receive(fd);
                } else if (cqe->res == -ENOBUFS) {
                    receive(fd);
                } else {
                    c->responding = 0;
                    c->generation++;
                    /* What still waits on it would keep it open. */
                    shutdown(fd, SHUT_RDWR);
                    close(fd);
                }
                break;
            case SEND:
                if (is_late) break;
                if (cqe->res == -EAGAIN) {
                    operation(ROOM, IORING_OP_POLL_ADD, fd)->poll32_events = POLLOUT;
                } else if (cqe->res > 0) {
                    c->sent += cqe->res;
                    respond_by_ring(fd);
                }
                break;
            case ROOM:
                if (!is_late && c->responding) respond_by_ring(fd);
                break;
            case STAMP:
                break;
            }
        }
        __atomic_store_n(cq_head, at, __ATOMIC_RELEASE);
    }
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: bare PORT FILE epoll|io_uring stamps|plain\n");
        return 2;
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    stamps = !strcmp(arguments[4], "stamps");
    file = checked(open(arguments[2], O_RDONLY), arguments[2]);
    body_length = checked(lseek(file, 0, SEEK_END), arguments[2]);
    body = mmap(NULL, body_length, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    if (body == MAP_FAILED) fail(arguments[2]);
    if (body_length >= LARGE) {
        by_file = body_length - (stamps ? LARGE_TAIL : 0);
    } else if (body_length > JOINED) {
        by_file = body_length - TAIL;
    }
    head_length = snprintf(head, sizeof head,
                           "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
                           "date: Sat, 28 Nov 2026 12:00:00 GMT\r\naccept-ranges: bytes\r\ncontent-length: %zu\r\n\r\n",
                           body_length);
    /* sendfile has no flag against it. */
    signal(SIGPIPE, SIG_IGN);
    int uses_ring = !strcmp(arguments[3], "io_uring");
    standing = uses_ring && !by_file;
    (uses_ring ? by_io_uring : by_epoll)(atoi(arguments[1]));
}

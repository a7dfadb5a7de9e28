/*
 * chef-init: the first process of a build's container.
 *
 *     chef-init --deadline SECONDS [--forward SOCKET:PORT] -- /PATH/TO/COMMAND [ARGUMENT...]
 *
 * It runs the command and exits as the command does. Meanwhile it
 *   - reaps orphaned processes, so that zombies do not use up the process limit;
 *   - forwards SIGTERM, SIGINT and SIGHUP to the command's process group;
 *   - ends everything at the deadline, even if the worker outside is dead;
 *   - with --forward, listens on 127.0.0.1:PORT for package managers that support proxies only by host and port, and
 *     copies bytes between these connections and the proxy's unix socket in both directions.
 *
 * When the first process of a PID namespace ends, the kernel kills all others in it, and no process inside can kill or
 * stop the first one. When it is not the first process, as in the tests, it kills the command's process group.
 *
 * The command is a path: PATH is not searched, because a build may write to the folders on it.
 *
 * Exit codes: the command's own; 128 + N if signal N killed it; 124 at the deadline; 127 if the command does not exist
 * and 126 if it cannot be run; 70 if the port is not available; 64 for wrong usage. A command may exit with any of
 * these itself, so the caller must use its own clock to find out whether the deadline has passed.
 *
 * It is linked statically, so that it runs in an empty image, and a build's LD_PRELOAD does not affect it.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 64,
    EXIT_SYSTEM = 70,
    EXIT_DEADLINE = 124,
    EXIT_CANNOT_RUN = 126,
    EXIT_NOT_FOUND = 127,
};

enum {
    MAX_CONNECTIONS = 512,    /* more wait in the listener's backlog */
    BUFFER_BYTES = 16 * 1024, /* each way; all buffers together: 16 MiB, of which only used pages count */
    BACKLOG = 1024,
    PAUSE_MS = 50, /* until the next accept after running out of resources */
    REPORT_MS = 100, /* how long a message may wait for a reader */
    MAX_SECONDS = 10 * 1000 * 1000,
};

struct options {
    int64_t milliseconds;
    struct sockaddr_un proxy;
    int port; /* 0: no forwarding */
    char **command;
};

/* One direction of a connection. It is read only when empty, so that a slow receiver slows down its sender. */
struct flow {
    size_t start, end; /* bytes[start..end) remain to be sent */
    bool ended;        /* no more will be read */
    bool closed;       /* the end was forwarded, or the receiver accepts no more */
    unsigned char bytes[BUFFER_BYTES];
};

/* flow[side] leads from fd[side] to fd[!side]; side 0 is the client, side 1 the proxy. */
struct connection {
    bool used;
    int fd[2];
    struct flow flow[2];
};

/* Static rather than on the heap: memory is bounded, and nothing has to be freed. */
static struct connection connections[MAX_CONNECTIONS];
static struct pollfd polled[2 + 2 * MAX_CONNECTIONS];

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void interrupt(int number)
{
    (void)number;
}

/*
 * Write to stderr, for a moment at most. It is the command's pipe too: one that is full, and that nobody empties, must
 * not hold up the deadline. The pipe's flags are shared with the command, so a signal ends the wait instead; it comes
 * again and again, in case the first one is too early.
 */
__attribute__((format(printf, 1, 2))) static void report(const char *format, ...)
{
    const struct sigaction action = {.sa_handler = interrupt}; /* without SA_RESTART */
    const struct itimerval soon = {{.tv_usec = REPORT_MS * 1000}, {.tv_usec = REPORT_MS * 1000}}, never = {0};
    va_list arguments;
    va_start(arguments, format);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    vdprintf(STDERR_FILENO, format, arguments);
    setitimer(ITIMER_REAL, &never, NULL);
    va_end(arguments);
}

/* --- The command line ------------------------------------------------------------------------------------------- */

static _Noreturn void refuse(const char *reason)
{
    dprintf(STDERR_FILENO,
            "chef-init: %s\n"
            "usage: chef-init --deadline SECONDS [--forward SOCKET:PORT] -- /PATH/TO/COMMAND [ARGUMENT...]\n",
            reason);
    exit(EXIT_USAGE);
}

static int64_t parse_deadline(const char *text)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(seconds > 0 && seconds <= MAX_SECONDS)) /* "nan" fails here too */
        refuse("--deadline takes a number of seconds above 0");
    return (int64_t)(seconds * 1000) + 1;
}

static void parse_forward(const char *text, struct options *options)
{
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    if (length == 0 || length >= sizeof options->proxy.sun_path)
        refuse("--forward takes SOCKET:PORT, the path of a unix socket and a port");
    char *end;
    long port = strtol(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end != '\0' || port < 1 || port > 65535)
        refuse("--forward takes a port from 1 to 65535");
    options->proxy.sun_family = AF_UNIX;
    memcpy(options->proxy.sun_path, text, length); /* the rest is zeros */
    options->port = (int)port;
}

static struct options parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"deadline", required_argument, NULL, 'd'},
        {"forward", required_argument, NULL, 'f'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {0};
    int option;
    while ((option = getopt_long(argc, argv, "+:", known, NULL)) != -1) { /* "+": stop at the command */
        if (option == 'd')
            options.milliseconds = parse_deadline(optarg);
        else if (option == 'f')
            parse_forward(optarg, &options);
        else
            refuse(option == ':' ? "an option has no value" : "unknown option");
    }
    if (options.milliseconds == 0)
        refuse("--deadline is required");
    if (argv[optind] == NULL || argv[optind][0] != '/')
        refuse("the command must be an absolute path");
    options.command = argv + optind;
    return options;
}

/* --- The command ------------------------------------------------------------------------------------------------ */

static pid_t start(char **command, const sigset_t *mask)
{
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        sigprocmask(SIG_SETMASK, mask, NULL);
        execv(command[0], command);
    }
    if (pid <= 0) {
        int error = errno;
        dprintf(STDERR_FILENO, "chef-init: cannot run %s: %s\n", command[0], strerror(error));
        _exit(error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
    }
    setpgid(pid, pid); /* in both processes, since either may run first */
    return pid;
}

static _Noreturn void leave(pid_t command, int code)
{
    if (getpid() != 1)
        kill(-command, SIGKILL);
    _exit(code);
}

/* Reap every child that has ended, including orphans; exit if the command is among them. */
static void reap(pid_t command)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == command)
            leave(command, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void take_signals(int signals, pid_t command)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap(command);
        else
            kill(-command, (int)info.ssi_signo);
    }
}

/* --- The forwarder ---------------------------------------------------------------------------------------------- */

static int listen_on(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr = {htonl(INADDR_LOOPBACK)},
    };
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, BACKLOG) < 0) {
        dprintf(STDERR_FILENO, "chef-init: cannot listen on 127.0.0.1:%d: %s\n", port, strerror(errno));
        exit(EXIT_SYSTEM);
    }
    return listener;
}

/* Whether a resource has run out that becomes available when a connection ends or after a moment. */
static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EAGAIN;
}

/* A socket to the proxy, or -1. Never blocks: on a unix socket EAGAIN means that the proxy's backlog is full. */
static int connect_to(const struct sockaddr_un *proxy)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)proxy, sizeof *proxy) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static struct connection *free_slot(void)
{
    for (struct connection *each = connections; each < connections + MAX_CONNECTIONS; each++)
        if (!each->used)
            return each;
    return NULL;
}

static void report_once(const char *path, int error)
{
    static bool reported;
    if (!reported)
        report("chef-init: the proxy at %s cannot be reached: %s\n", path, strerror(error));
    reported = true;
}

/*
 * Accept a waiting client and connect it. False if a resource has run out: the client then stays in the backlog.
 * The proxy is connected first, since an accepted client cannot be put back.
 */
static bool accept_client(int listener, const struct sockaddr_un *proxy)
{
    int server = connect_to(proxy), error = errno;
    if (server < 0 && is_shortage(error))
        return false;
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0 || server < 0) {
        bool has_run_out = client < 0 && errno != EAGAIN && is_shortage(errno);
        if (server < 0)
            report_once(proxy->sun_path, error);
        if (client >= 0)
            close(client); /* the proxy has gone: close the connection rather than leave it hanging */
        if (server >= 0)
            close(server);
        return !has_run_out;
    }
    int yes = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* small handshake messages must not be delayed */
    struct connection *connection = free_slot();
    connection->used = true;
    connection->fd[0] = client;
    connection->fd[1] = server;
    for (int side = 0; side < 2; side++) {
        struct flow *flow = &connection->flow[side];
        flow->start = flow->end = 0;
        flow->ended = flow->closed = false;
    }
    return true;
}

static bool is_passing(int error)
{
    return error == EAGAIN || error == EINTR;
}

/* Copy what is available from one side to the other, and forward the end. */
static void carry(struct connection *connection, int side)
{
    struct flow *flow = &connection->flow[side];
    int from = connection->fd[side], to = connection->fd[!side];
    if (flow->start == flow->end && !flow->ended) {
        ssize_t count = recv(from, flow->bytes, sizeof flow->bytes, 0);
        flow->start = 0;
        flow->end = count > 0 ? (size_t)count : 0;
        flow->ended = count == 0 || (count < 0 && !is_passing(errno));
    }
    if (flow->start < flow->end) {
        ssize_t count = send(to, flow->bytes + flow->start, flow->end - flow->start, MSG_NOSIGNAL);
        if (count >= 0) {
            flow->start += (size_t)count;
        } else if (!is_passing(errno)) { /* it accepts no more, but may still send */
            flow->start = flow->end;
            flow->ended = flow->closed = true;
        }
    }
    if (flow->ended && flow->start == flow->end && !flow->closed) {
        shutdown(to, SHUT_WR);
        flow->closed = true;
    }
}

static void serve(struct connection *connection)
{
    carry(connection, 0);
    carry(connection, 1);
    if (connection->flow[0].closed && connection->flow[1].closed) {
        close(connection->fd[0]);
        close(connection->fd[1]);
        connection->used = false;
    }
}

/* A side without requested events is not polled: its hang-up would be reported again and again. */
static struct pollfd wanted(const struct connection *connection, int side)
{
    const struct flow *out = &connection->flow[side], *in = &connection->flow[!side];
    short events = 0;
    if (connection->used && out->start == out->end && !out->ended)
        events |= POLLIN;
    if (connection->used && in->start < in->end)
        events |= POLLOUT;
    return (struct pollfd){.fd = events ? connection->fd[side] : -1, .events = events};
}

/* --- The loop --------------------------------------------------------------------------------------------------- */

static nfds_t fill_polled(int signals, int listener)
{
    nfds_t count = 2;
    bool is_full = true;
    for (int each = 0; each < MAX_CONNECTIONS; each++) {
        for (int side = 0; side < 2; side++)
            polled[2 + 2 * each + side] = wanted(&connections[each], side);
        if (connections[each].used)
            count = (nfds_t)(4 + 2 * each); /* poll accepts no more entries than the limit of open files */
        else
            is_full = false;
    }
    polled[0] = (struct pollfd){.fd = signals, .events = POLLIN};
    polled[1] = (struct pollfd){.fd = is_full ? -1 : listener, .events = POLLIN};
    return count;
}

static _Noreturn void run(const struct options *options, int64_t deadline, int signals, int listener, pid_t command)
{
    int64_t paused_until = 0;
    for (;;) {
        int64_t now = now_ms();
        if (now >= deadline) {
            report("chef-init: deadline exceeded\n");
            leave(command, EXIT_DEADLINE);
        }
        bool is_paused = now < paused_until;
        int64_t next = is_paused && paused_until < deadline ? paused_until : deadline;
        int timeout = next - now < INT32_MAX ? (int)(next - now) : INT32_MAX;
        nfds_t count = fill_polled(signals, is_paused ? -1 : listener);
        if (poll(polled, count, timeout) < 0) {
            if (errno == EINTR)
                continue;
            report("chef-init: poll: %s\n", strerror(errno));
            leave(command, EXIT_SYSTEM);
        }
        if (polled[0].revents)
            take_signals(signals, command);
        for (nfds_t each = 2; each < count; each += 2)
            if (polled[each].revents || polled[each + 1].revents)
                serve(&connections[each / 2 - 1]);
        if (polled[1].revents && !accept_client(listener, &options->proxy))
            paused_until = now_ms() + PAUSE_MS;
    }
}

int main(int argc, char **argv)
{
    struct options options = parse(argc, argv);
    int64_t deadline = now_ms() + options.milliseconds;

    prctl(PR_SET_DUMPABLE, 0);        /* the build has the same user, and must not access us by ptrace or /proc */
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* adopt orphans even when we are not the first process */
    int listener = options.port ? listen_on(options.port) : -1;

    sigset_t taken, before;
    sigemptyset(&taken);
    sigaddset(&taken, SIGCHLD);
    sigaddset(&taken, SIGTERM);
    sigaddset(&taken, SIGINT);
    sigaddset(&taken, SIGHUP);
    sigprocmask(SIG_BLOCK, &taken, &before);
    int signals = signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals < 0) {
        dprintf(STDERR_FILENO, "chef-init: signalfd: %s\n", strerror(errno));
        exit(EXIT_SYSTEM);
    }
    run(&options, deadline, signals, listener, start(options.command, &before));
}

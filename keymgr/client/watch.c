#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "connect.h"

enum { ANSWER_MS = 5000, RETRY_MS = 200 };

struct lg_watch {
    char path[108];
    uint64_t session;
    int (*cb)(void *arg, const struct lg_event *e);
    void *arg;
    int stop;
    pthread_t thread;
};

static int begin(struct lg_watch *w, int fd, uint8_t *frame)
{
    struct lg_request q = { .type = LG_MSG_WATCH, .id = 1, .session = w->session };
    struct lg_answer a = { 0 };
    int64_t deadline = lg_now_ms() + ANSWER_MS;
    size_t len;
    int rc = lg_request_encode(&q, frame, LG_WIRE_FRAME_MAX, &len);
    if (!rc)
        rc = lg_send_frame(fd, frame, len, deadline);
    if (!rc)
        rc = lg_recv_frame(fd, frame, LG_WIRE_FRAME_MAX, &len, deadline, w->stop);
    if (!rc)
        rc = lg_answer_decode(frame, len, &a);
    return rc ? rc : a.status;
}

static int serve(struct lg_watch *w, int fd, uint8_t *frame)
{
    struct lg_event e = { .kind = LG_EVENT_RESYNC };
    size_t len;
    w->cb(w->arg, &e);
    for (;;) {
        struct lg_request ack = { .type = LG_MSG_ACK };
        int rc = lg_recv_frame(fd, frame, LG_WIRE_FRAME_MAX, &len, -1, w->stop);
        if (!rc)
            rc = lg_event_decode(frame, len, &ack.event, &e);
        if (rc)
            return rc;
        ack.event_result = w->cb(w->arg, &e);
        rc = lg_request_encode(&ack, frame, LG_WIRE_FRAME_MAX, &len);
        if (!rc)
            rc = lg_send_frame(fd, frame, len, lg_now_ms() + ANSWER_MS);
        if (rc)
            return rc;
    }
}

static void *watching(void *arg)
{
    struct lg_watch *w = arg;
    uint8_t *frame = malloc(LG_WIRE_FRAME_MAX);
    int rc = frame ? 0 : -ECANCELED;
    while (rc != -ECANCELED) {
        int fd = lg_connect(w->path, lg_now_ms() + ANSWER_MS);
        rc = fd < 0 ? fd : begin(w, fd, frame);
        if (!rc)
            rc = serve(w, fd, frame);
        if (fd >= 0)
            close(fd);
        if (rc != -ECANCELED) {
            struct pollfd p = { w->stop, POLLIN, 0 };
            if (poll(&p, 1, RETRY_MS) > 0)
                rc = -ECANCELED;
        }
    }
    free(frame);
    return NULL;
}

int lg_watch_start(const char *socket_path, uint64_t session, int (*cb)(void *arg, const struct lg_event *e), void *arg, struct lg_watch **ret)
{
    struct lg_watch *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    int rc = 0;
    if (!socket_path)
        rc = lg_client_default_socket(w->path, sizeof w->path);
    else if (strlen(socket_path) >= sizeof w->path)
        rc = -ENAMETOOLONG;
    else
        memcpy(w->path, socket_path, strlen(socket_path) + 1);
    w->session = session;
    w->cb = cb;
    w->arg = arg;
    w->stop = rc ? -1 : eventfd(0, EFD_CLOEXEC);
    if (!rc && w->stop < 0)
        rc = -errno;
    if (!rc)
        rc = -pthread_create(&w->thread, NULL, watching, w);
    if (rc) {
        if (w->stop >= 0)
            close(w->stop);
        free(w);
        return rc;
    }
    *ret = w;
    return 0;
}

void lg_watch_stop(struct lg_watch *w)
{
    if (!w)
        return;
    eventfd_write(w->stop, 1);
    pthread_join(w->thread, NULL);
    close(w->stop);
    free(w);
}

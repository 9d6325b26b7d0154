#include "link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_MS = 10000 };

struct lg_link {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
    uint64_t sent; /* without TLS */
};

/* ---- TCP -------------------------------------------------------------------------------------------------------------------------------------- */

static int wait_for(const struct lg_link *l, short events)
{
    struct pollfd p = { l->fd, events, 0 };
    int n = poll(&p, 1, WAIT_MS);
    return n > 0 ? 0 : n < 0 && errno != EINTR ? -errno : n < 0 ? -EINTR : -ETIMEDOUT;
}

static int connect_to(struct lg_link *l, const struct addrinfo *a)
{
    int failed = 0, on = 1;
    socklen_t len = sizeof failed;
    l->fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (l->fd < 0)
        return -errno;
    (void)setsockopt(l->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    int rc = connect(l->fd, a->ai_addr, a->ai_addrlen) ? -errno : 0;
    if (rc == -EINPROGRESS)
        rc = wait_for(l, POLLOUT);
    if (!rc && !getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &failed, &len))
        rc = -failed;
    if (rc) {
        close(l->fd);
        l->fd = -1;
    }
    return rc;
}

static int dial(struct lg_link *l, const struct lg_link_options *o, char *error, size_t cap)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all = NULL;
    int r = getaddrinfo(o->host, o->port, &hints, &all), rc = -EHOSTUNREACH;
    if (r) {
        snprintf(error, cap, "%s port %s: %s", o->host, o->port, gai_strerror(r));
        return -EHOSTUNREACH;
    }
    for (struct addrinfo *a = all; a && rc; a = a->ai_next)
        rc = connect_to(l, a);
    freeaddrinfo(all);
    if (rc)
        snprintf(error, cap, "%s port %s: %s", o->host, o->port, strerror(-rc));
    return rc;
}

/* ---- TLS ---------------------------------------------------------------------------------------------------------------------------------------- */

static int tls_error(const char *what, char *error, size_t cap)
{
    const char *why = NULL;
    unsigned long e, last = 0;
    while ((e = ERR_get_error()))
        last = e;
    if (last)
        why = ERR_reason_error_string(last);
    snprintf(error, cap, "%s: %s", what, why ? why : "failed");
    return -ENOTCONN;
}

static int own_certificate(SSL_CTX *ctx, const struct lg_link_options *o, char *error, size_t cap)
{
    struct stat st;
    if (SSL_CTX_use_certificate_chain_file(ctx, o->cert) != 1)
        return tls_error(o->cert, error, cap);
    if (stat(o->key, &st) == 0 && st.st_mode & 007) {
        snprintf(error, cap, "%s: this private key can be used by everybody; chmod o= it", o->key);
        return -EACCES;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, o->key, SSL_FILETYPE_PEM) != 1)
        return tls_error(o->key, error, cap);
    return SSL_CTX_check_private_key(ctx) == 1 ? 0 : tls_error("certificate and private key do not belong together", error, cap);
}

/* What is expected of the receiver: a chain to our CA, and this name in it. */
static int expect(SSL *ssl, const char *name)
{
    struct in6_addr ip;
    SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    if (inet_pton(AF_INET, name, &ip) == 1 || inet_pton(AF_INET6, name, &ip) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1 ? 0 : -EINVAL;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, (char *)(uintptr_t)name) == 1 ? 0 : -EINVAL;
}

static int shake(struct lg_link *l, const char *name, char *error, size_t cap)
{
    for (;;) {
        ERR_clear_error();
        int r = SSL_connect(l->ssl), e = SSL_get_error(l->ssl, r), rc;
        if (r == 1)
            return 0;
        if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
            if (!(rc = wait_for(l, e == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT)))
                continue;
            snprintf(error, cap, "TLS with the receiver: %s", strerror(-rc));
            return rc;
        }
        long v = SSL_get_verify_result(l->ssl);
        if (v == X509_V_OK)
            return tls_error("TLS with the receiver", error, cap);
        snprintf(error, cap, "the receiver's certificate is not accepted for %s: %s", name, X509_verify_cert_error_string(v));
        return -EACCES;
    }
}

static int tls(struct lg_link *l, const struct lg_link_options *o, char *error, size_t cap)
{
    const char *name = o->name && o->name[0] ? o->name : o->host;
    ERR_clear_error();
    l->ctx = SSL_CTX_new(TLS_client_method());
    if (!l->ctx || SSL_CTX_set_min_proto_version(l->ctx, TLS1_2_VERSION) != 1)
        return tls_error("TLS", error, cap);
    SSL_CTX_set_mode(l->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_load_verify_locations(l->ctx, o->ca, NULL) != 1)
        return tls_error(o->ca, error, cap);
    int rc = o->cert && o->cert[0] ? own_certificate(l->ctx, o, error, cap) : 0;
    if (rc)
        return rc;
    l->ssl = SSL_new(l->ctx);
    if (!l->ssl || SSL_set_fd(l->ssl, l->fd) != 1 || expect(l->ssl, name))
        return tls_error("TLS", error, cap);
    return shake(l, name, error, cap);
}

/* ---- the contract --------------------------------------------------------------------------------------------------------------------------------- */

int lg_link_open(const struct lg_link_options *o, struct lg_link **ret, char *error, size_t cap)
{
    struct lg_link *l = calloc(1, sizeof *l);
    if (!l) {
        snprintf(error, cap, "out of memory");
        return -ENOMEM;
    }
    l->fd = -1;
    int rc = dial(l, o, error, cap);
    if (!rc && o->tls)
        rc = tls(l, o, error, cap);
    if (rc) {
        SSL_free(l->ssl);
        l->ssl = NULL; /* no farewell */
        lg_link_close(l);
        return rc;
    }
    *ret = l;
    return 0;
}

void lg_link_close(struct lg_link *l)
{
    if (!l)
        return;
    if (l->ssl)
        (void)SSL_shutdown(l->ssl);
    SSL_free(l->ssl);
    SSL_CTX_free(l->ctx);
    if (l->fd >= 0)
        close(l->fd);
    free(l);
}

static int lost(int e, char *error, size_t cap)
{
    if (e == SSL_ERROR_SSL)
        (void)tls_error("the receiver ended the connection", error, cap);
    else
        snprintf(error, cap, "the receiver closed the connection");
    return -EPIPE;
}

int lg_link_send(struct lg_link *l, const void *data, size_t len, char *error, size_t cap)
{
    const char *p = data;
    while (len) {
        int e = SSL_ERROR_WANT_WRITE, rc;
        ssize_t n;
        ERR_clear_error();
        if (l->ssl) {
            n = SSL_write(l->ssl, p, (int)(len > 16384 ? 16384 : len));
            e = n > 0 ? 0 : SSL_get_error(l->ssl, (int)n);
        } else {
            n = send(l->fd, p, len, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                e = SSL_ERROR_SYSCALL;
            l->sent += n > 0 ? (uint64_t)n : 0;
        }
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
            if ((rc = wait_for(l, e == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT)) && rc != -EINTR) {
                snprintf(error, cap, "the receiver takes nothing: %s", strerror(-rc));
                return rc;
            }
        } else {
            return lost(e, error, cap);
        }
    }
    return 0;
}

int lg_link_check(struct lg_link *l, char *error, size_t cap)
{
    char b[512]; /* a receiver has nothing to say; what it says all the same is passed over */
    for (;;) {
        ERR_clear_error();
        if (l->ssl) {
            int n = SSL_read(l->ssl, b, sizeof b), e = n > 0 ? 0 : SSL_get_error(l->ssl, n);
            if (n > 0)
                continue;
            return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? 0 : lost(e, error, cap);
        }
        ssize_t n = recv(l->fd, b, sizeof b, 0);
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n == 0 || (n < 0 && errno != EINTR))
            return lost(0, error, cap);
    }
}

void lg_link_progress(const struct lg_link *l, uint64_t *ret_sent, uint64_t *ret_taken)
{
    int waiting = 0;
    *ret_sent = l->ssl ? BIO_number_written(SSL_get_wbio(l->ssl)) : l->sent;
    *ret_taken = ioctl(l->fd, SIOCOUTQ, &waiting) || waiting < 0 || (uint64_t)waiting > *ret_sent ? 0 : *ret_sent - (uint64_t)waiting;
}

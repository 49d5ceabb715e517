/* SPDX-License-Identifier: Apache-2.0 */
/* "host:port" and socket addresses. */
#include "net/ucx.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* chosen: a way there and back on a network of one's own; what takes longer is not known. */
enum { REFUSAL_MS = 2 };

static enum qy_status bad_form(const char *what, const char *text, struct qy_error *err)
{
    return qy_error_set(err, QY_ERR_CONFIG,
                        "%s '%s': refused; host:port is accepted, [address]:port for IPv6, with a "
                        "port up to 65535",
                        what, text);
}

static enum qy_status other_family(const char *what, const char *text, struct qy_error *err)
{
    return qy_error_set(
        err, QY_ERR_CONFIG,
        "%s '%s': refused; the transport uses IPv%d here; for IPv6 set UCX_TCP_AF_PRIO to "
        "inet6 in every process, for IPv4 do not set it",
        what, text, qyi_ucx_family() == AF_INET6 ? 6 : 4);
}

/* Splits text into host and port. 0: it is not of the form. */
static int split(const char *text, char host[QY_NET_ADDRESS_BYTES], char port[8])
{
    const char *colon = strrchr(text, ':');
    const char *first = text;
    size_t n;

    if (colon == NULL) {
        return 0;
    }
    n = (size_t)(colon - text);
    if (text[0] == '[') {
        if (n < 2 || colon[-1] != ']') {
            return 0;
        }
        first++;
        n -= 2;
    } else if (memchr(text, ':', n) != NULL) {
        return 0;
    }
    if (n >= QY_NET_ADDRESS_BYTES || strlen(colon + 1) == 0 || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
        return 0;
    }
    memcpy(host, first, n);
    host[n] = '\0';
    strcpy(port, colon + 1);
    return 1;
}

static unsigned port_number(const char *port)
{
    unsigned number = 0;

    for (const char *p = port; *p != '\0'; p++) {
        number = number * 10 + (unsigned)(*p - '0');
    }
    return number;
}

/* 0: found; otherwise getaddrinfo's reason. flags: AI_... */
static int look_up(const char *host, const char *port, int family, int flags,
                   struct qyi_ucx_address *address)
{
    const struct addrinfo hints = {
        .ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    struct addrinfo *list = NULL;
    const int failed = getaddrinfo(host, port, &hints, &list);

    if (failed != 0) {
        return failed;
    }
    memset(address, 0, sizeof(*address));
    memcpy(&address->at, list->ai_addr, list->ai_addrlen);
    address->bytes = list->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

/* A name that was looked up before. NULL: it was not. */
static struct qyi_ucx_name *known(struct qyi_ucx_names *names, const char *text)
{
    for (uint32_t i = 0; i < names->n; i++) {
        if (strcmp(names->names[i].text, text) == 0) {
            return &names->names[i];
        }
    }
    return NULL;
}

/* chosen: a full table forgets its oldest name. */
static void keep(struct qyi_ucx_names *names, const char *text,
                 const struct qyi_ucx_address *address)
{
    struct qyi_ucx_name *name = &names->names[names->next];

    snprintf(name->text, sizeof(name->text), "%s", text);
    name->address = *address;
    names->next = (names->next + 1) % names->max;
    names->n += names->n < names->max;
}

enum qy_status qyi_ucx_resolve(struct qyi_ucx_names *names, const char *text,
                               struct qyi_ucx_address *address, struct qy_error *err)
{
    const int listening = names == NULL;
    const char *what = listening ? "listen" : "address";
    char host[QY_NET_ADDRESS_BYTES], port[8];
    int any, failed;

    if (!split(text, host, port) || port_number(port) > 65535) {
        return bad_form(what, text, err);
    }
    any = host[0] == '\0' || strcmp(host, "*") == 0;
    if (!listening && (any || port_number(port) == 0)) {
        return bad_form(what, text, err);
    }
    if (any) {
        failed = look_up(NULL, port, qyi_ucx_family(), AI_PASSIVE, address);
    } else if (look_up(host, port, AF_UNSPEC, AI_NUMERICHOST, address) == 0) {
        return address->at.ss_family == qyi_ucx_family() ? QY_OK : other_family(what, text, err);
    } else if (!listening && known(names, text) != NULL) {
        *address = known(names, text)->address;
        return QY_OK;
    } else {
        failed = look_up(host, port, qyi_ucx_family(), 0, address);
    }
    if (failed != 0) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "%s '%s': no such host (%s); check the name",
                            what, text, gai_strerror(failed));
    }
    if (!listening) {
        keep(names, text, address);
    }
    return QY_OK;
}

void qyi_ucx_format(const struct sockaddr_storage *at, char out[QY_NET_ADDRESS_BYTES])
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (at->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)at;

        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(out, QY_NET_ADDRESS_BYTES, "[%s]:%u", host, (unsigned)ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)at;

        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(out, QY_NET_ADDRESS_BYTES, "%s:%u", host, (unsigned)ntohs(in->sin_port));
    }
}

int qyi_ucx_is_refused(const struct qyi_ucx_address *to)
{
    const int fd = to->bytes == 0
                       ? -1
                       : socket(to->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct pollfd done = {.fd = fd, .events = POLLOUT};
    int cause = 0;
    socklen_t bytes = sizeof(cause);

    if (fd < 0) {
        return 0;
    }
    if (connect(fd, (const struct sockaddr *)&to->at, to->bytes) != 0) {
        cause = errno;
    }
    if (cause == EINPROGRESS && poll(&done, 1, REFUSAL_MS) == 1 &&
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &cause, &bytes) != 0) {
        cause = 0;
    }
    close(fd);
    return cause == ECONNREFUSED;
}

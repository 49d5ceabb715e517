/* SPDX-License-Identifier: Apache-2.0 */
/* Which network device of this host has an address: nobody is to listen on another. */
#include "net/ucx.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int names_no_host(const struct sockaddr_storage *at)
{
    if (at->ss_family == AF_INET6) {
        return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)at)->sin6_addr);
    }
    return ((const struct sockaddr_in *)at)->sin_addr.s_addr == htonl(INADDR_ANY);
}

/* Whether the interface has the address; the loopback device has its whole network. */
static int has_address(const struct ifaddrs *i, const struct sockaddr_storage *at)
{
    if (i->ifa_addr == NULL || i->ifa_addr->sa_family != at->ss_family) {
        return 0;
    }
    if (at->ss_family == AF_INET6) {
        return IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr,
                                  &((const struct sockaddr_in6 *)at)->sin6_addr);
    }
    if (at->ss_family == AF_INET) {
        const in_addr_t mine = ((const struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr;
        const in_addr_t other = ((const struct sockaddr_in *)at)->sin_addr.s_addr;
        const in_addr_t mask = (i->ifa_flags & IFF_LOOPBACK) != 0 && i->ifa_netmask != NULL
                                   ? ((const struct sockaddr_in *)i->ifa_netmask)->sin_addr.s_addr
                                   : UINT32_MAX;

        return (mine & mask) == (other & mask);
    }
    return 0;
}

/* The device's own address, in the family and with the port of `at`. 0: it has none. */
static int take_address(const struct ifaddrs *list, const char *device, struct sockaddr_storage *at)
{
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        if (i->ifa_addr == NULL || strcmp(i->ifa_name, device) != 0 ||
            i->ifa_addr->sa_family != at->ss_family) {
            continue;
        }
        if (at->ss_family == AF_INET6) {
            ((struct sockaddr_in6 *)at)->sin6_addr =
                ((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr;
            ((struct sockaddr_in6 *)at)->sin6_scope_id =
                ((const struct sockaddr_in6 *)i->ifa_addr)->sin6_scope_id;
        } else {
            ((struct sockaddr_in *)at)->sin_addr =
                ((const struct sockaddr_in *)i->ifa_addr)->sin_addr;
        }
        return 1;
    }
    return 0;
}

static int is_interface(const struct ifaddrs *list, const char *device)
{
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        if (strcmp(i->ifa_name, device) == 0) {
            return 1;
        }
    }
    return 0;
}

/* "mlx5_0" or "mlx5_0:1". */
static int is_rdma(const char *device)
{
    char path[32 + QYI_UCX_DEVICE_BYTES];

    snprintf(path, sizeof(path), "/sys/class/infiniband/%.*s", (int)strcspn(device, ":/"), device);
    return device[strcspn(device, "/")] == '\0' && device[0] != ':' && device[0] != '.' &&
           access(path, F_OK) == 0;
}

static enum qy_status no_such_device(const struct ifaddrs *list, const char *device,
                                     struct qy_error *err)
{
    char names[256] = "";
    size_t used = 0;

    for (const struct ifaddrs *i = list; i != NULL && used < sizeof(names); i = i->ifa_next) {
        if (i->ifa_addr != NULL && i->ifa_addr->sa_family == AF_INET) {
            used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
                                     used == 0 ? "" : ", ", i->ifa_name);
        }
    }
    return qy_error_set(
        err, QY_ERR_CONFIG,
        "network device '%s': no such device on this host; it has: %s; name one of them", device,
        names);
}

/* The address to listen on, against the device that the user named. */
static enum qy_status match(const struct ifaddrs *list, const char *device,
                            struct qyi_ucx_address *listen, struct qy_error *err)
{
    char text[QY_NET_ADDRESS_BYTES];

    if (!is_interface(list, device)) {
        return is_rdma(device) ? QY_OK : no_such_device(list, device, err);
    }
    if (listen == NULL) {
        return QY_OK;
    }
    qyi_ucx_format(&listen->at, text);
    if (names_no_host(&listen->at)) {
        return take_address(list, device, &listen->at)
                   ? QY_OK
                   : qy_error_set(
                         err, QY_ERR_CONFIG,
                         "listen '%s': device '%s' has no address of that kind; give it one, "
                         "or name another device",
                         text, device);
    }
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        if (strcmp(i->ifa_name, device) == 0 && has_address(i, &listen->at)) {
            return QY_OK;
        }
    }
    return qy_error_set(
        err, QY_ERR_CONFIG,
        "listen '%s': device '%s' has not this address; name the device that has it, or "
        "listen on ':port'",
        text, device);
}

/* The device that has the address to listen on. */
static enum qy_status find(const struct ifaddrs *list, const struct qyi_ucx_address *listen,
                           char device[QYI_UCX_DEVICE_BYTES], struct qy_error *err)
{
    char text[QY_NET_ADDRESS_BYTES];

    device[0] = '\0';
    if (listen == NULL || names_no_host(&listen->at)) {
        return QY_OK;
    }
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        if (has_address(i, &listen->at)) {
            snprintf(device, QYI_UCX_DEVICE_BYTES, "%s", i->ifa_name);
            return QY_OK;
        }
    }
    qyi_ucx_format(&listen->at, text);
    return qy_error_set(
        err, QY_ERR_CONFIG,
        "listen '%s': no device of this host has this address; name one of its own, or "
        "listen on ':port'",
        text);
}

enum qy_status qyi_ucx_choose_device(const char *wanted, struct qyi_ucx_address *listen,
                                     char device[QYI_UCX_DEVICE_BYTES], struct qy_error *err)
{
    struct ifaddrs *list = NULL;
    enum qy_status st;

    if (getifaddrs(&list) != 0) {
        return qy_error_set(err, QY_ERR_DEVICE, "network devices: the system does not list them");
    }
    if (wanted == NULL || wanted[0] == '\0') {
        st = find(list, listen, device, err);
    } else {
        st = match(list, wanted, listen, err);
        snprintf(device, QYI_UCX_DEVICE_BYTES, "%s", wanted);
    }
    freeifaddrs(list);
    return st;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Signals that UCX took as it was loaded. */
#include "net/net.h"

#ifdef QY_HAVE_UCX
#include "net/environ.h"

#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <ucs/debug/debug.h>

/* Whether a function of UCX handles the signal: somebody else may have taken it since. */
static int is_taken(int signal_number)
{
    struct sigaction now;
    Dl_info info;
    void *handler;

    if (sigaction(signal_number, NULL, &now) != 0) {
        return 0;
    }
    memcpy(&handler, &now.sa_handler, sizeof(handler));
    return dladdr(handler, &info) != 0 && info.dli_fname != NULL &&
           strstr(info.dli_fname, "libucs") != NULL;
}

void qy_net_give_signals_back(void)
{
    static const struct {
        int signal_number;
        const char *variable; /* with it the user asks UCX to do this */
    } taken[] = {{SIGHUP, "UCX_DEBUG_SIGNO"},
                 {SIGILL, "UCX_HANDLE_ERRORS"},
                 {SIGBUS, "UCX_HANDLE_ERRORS"},
                 {SIGFPE, "UCX_HANDLE_ERRORS"},
                 {SIGSEGV, "UCX_HANDLE_ERRORS"}};

    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        if (is_taken(taken[i].signal_number) && qyi_environ(taken[i].variable) == NULL) {
            ucs_debug_disable_signal(taken[i].signal_number);
        }
    }
}
#else
void qy_net_give_signals_back(void)
{
}
#endif

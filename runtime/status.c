/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Status names and error text. Nothing here allocates; the text lives in the caller's struct and
 * is cut, never overrun, when it is too long.
 */
#include "runtime/runtime.h"

#include <stdio.h>
#include <string.h>

const char *qy_status_name(enum qy_status status)
{
    switch (status) { /* no default: -Wswitch finds a forgotten code */
    case QY_OK:
        return "QY_OK";
    case QY_PENDING:
        return "QY_PENDING";
    case QY_AGAIN:
        return "QY_AGAIN";
    case QY_ERR_INVALID:
        return "QY_ERR_INVALID";
    case QY_ERR_CONFIG:
        return "QY_ERR_CONFIG";
    case QY_ERR_NOMEM:
        return "QY_ERR_NOMEM";
    case QY_ERR_UNSUPPORTED:
        return "QY_ERR_UNSUPPORTED";
    case QY_ERR_NOT_FOUND:
        return "QY_ERR_NOT_FOUND";
    case QY_ERR_TIMEOUT:
        return "QY_ERR_TIMEOUT";
    case QY_ERR_PEER:
        return "QY_ERR_PEER";
    case QY_ERR_DEVICE:
        return "QY_ERR_DEVICE";
    case QY_ERR_CORRUPT:
        return "QY_ERR_CORRUPT";
    }
    return "unknown status";
}

/* Formats into a buffer of its own: the arguments may point into the text being replaced. */
enum qy_status qy_error_set(struct qy_error *err, enum qy_status status, const char *format, ...)
{
    char text[sizeof(err->text)];
    va_list args;

    if (err == NULL) {
        return status;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    memcpy(err->text, text, sizeof(text));
    err->status = status;
    return status;
}

enum qy_status qy_error_wrap(struct qy_error *err, enum qy_status status, const char *format, ...)
{
    char text[sizeof(err->text)];
    va_list args;
    size_t used, room, length;

    if (err == NULL) {
        return status;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    /* prefix, ": ", old text; cut where the room ends */
    used = strlen(text);
    room = sizeof(err->text) - 1 - used;
    room = room > 2 ? room - 2 : 0;
    length = strlen(err->text);
    length = length < room ? length : room;
    if (room > 0) {
        memcpy(text + used, ": ", 2);
        memcpy(text + used + 2, err->text, length);
        text[used + 2 + length] = '\0';
    }
    memcpy(err->text, text, sizeof(text));
    err->status = status;
    return status;
}

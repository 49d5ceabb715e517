/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of quarry doctor share. */
#ifndef QY_SERVE_DOCTOR_H
#define QY_SERVE_DOCTOR_H

#include "serve/serve.h"

/* One finding: text for people, and the same as JSON. */
struct qyi_doctor {
    cJSON *root, *warnings;
    int json;
};

void qyi_doctor_line(const struct qyi_doctor *doctor, const char *what, const char *text);
/* Something to fix, and how. */
void qyi_doctor_warn(struct qyi_doctor *doctor, const char *text);

/* doctor_net.c: UCX, its transports and settings, and the servers of net.memory. */
void qyi_doctor_network(struct qyi_doctor *doctor, const struct qyi_app *app);

/* doctor_selection.c: a line per shape and preset. */
void qyi_doctor_selection(struct qyi_doctor *doctor, const struct qyi_app *app,
                          struct qy_device *dev);

#endif

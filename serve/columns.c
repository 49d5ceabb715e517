/* SPDX-License-Identifier: Apache-2.0 */
/* Two texts side by side, wrapped at words. Counts characters, not bytes. */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "serve/serve.h"

static int terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) {
        return size.ws_col < 160 ? size.ws_col : 160;
    }
    return 100;
}

static size_t character_bytes(const char *text)
{
    size_t n = 1;
    while (((unsigned char)text[n] & 0xc0) == 0x80) {
        n++;
    }
    return n;
}

/* The next line of at most width characters: its bytes; *next is where the following one starts. */
static size_t next_line(const char *text, int width, int *used, const char **next)
{
    size_t bytes = 0, last_space = 0;
    int count = 0, count_at_space = 0;
    while (text[bytes] != '\0' && text[bytes] != '\n' && count < width) {
        if (text[bytes] == ' ') {
            last_space = bytes;
            count_at_space = count;
        }
        bytes += character_bytes(text + bytes);
        count++;
    }
    if (text[bytes] != '\0' && text[bytes] != '\n' && text[bytes] != ' ' && last_space > 0) {
        bytes = last_space;
        count = count_at_space;
    }
    *used = count;
    *next = text + bytes + (text[bytes] == '\n' || text[bytes] == ' ');
    return bytes;
}

static void put_cell(FILE *out, const char **text, int width, int pad)
{
    int used = 0;
    const char *at = *text;
    if (*at != '\0') {
        const size_t bytes = next_line(at, width, &used, text);
        for (size_t i = 0; i < bytes; i++) { /* a control character would break the columns */
            fputc((unsigned char)at[i] < 0x20 ? ' ' : at[i], out);
        }
    }
    if (pad) {
        fprintf(out, "%*s", width - used, "");
    }
}

void qyi_print_columns(FILE *out, const char *left_title, const char *left, const char *right_title,
                       const char *right)
{
    const int width = (terminal_width() - 3) / 2;
    fprintf(out, "%-*.*s | %.*s\n", width, width, left_title, width, right_title);
    for (int i = 0; i < 2 * width + 3; i++) {
        fputc(i == width + 1 ? '+' : '-', out);
    }
    fputc('\n', out);
    while (*left != '\0' || *right != '\0') {
        put_cell(out, &left, width, 1);
        fputs(" | ", out);
        put_cell(out, &right, width, 0);
        fputc('\n', out);
    }
}

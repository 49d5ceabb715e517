#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A cable between two network devices that delays, loses or repeats what it carries, for kernels without netem.

usage: bad_wire.py DEVICE DEVICE [--delay-ms 0] [--lose 0] [--repeat 0] [--seed 1]      (as root, until it is killed)
Shares are of frames, each way. Says "ready" when it carries.
"""
import argparse
import heapq
import random
import select
import socket
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING = 263, 15, 4
ETH_P_ALL = 3
FRAME = 1 << 17  # with segmentation left to the device, a frame is larger than the wire's


def end(device):
    """A socket for all frames that come in there; each behind what the kernel has still to do to it (checksum,
    segments), which the other end is told."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind((device, ETH_P_ALL))
    s.setblocking(False)
    return s


def carry(ends, args):
    draw = random.Random(args.seed)
    waiting, n = [], 0  # (when, n, frame, to)
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select(ends, [], [], pause)
        for s in ready:
            frame, address = s.recvfrom(FRAME)
            if address[2] == PACKET_OUTGOING or draw.random() < args.lose:
                continue  # one that was put there by us, or bad luck
            for _ in range(2 if draw.random() < args.repeat else 1):
                n += 1
                heapq.heappush(waiting, (time.monotonic() + args.delay_ms / 1e3, n, frame, ends[ends[0] is s]))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, frame, to = heapq.heappop(waiting)
            try:
                to.send(frame)
            except OSError:
                pass  # the device is down or full: lost as on any wire


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs=2, metavar="DEVICE")
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--lose", type=float, default=0)
    parser.add_argument("--repeat", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    ends = [end(device) for device in args.devices]
    print("ready", flush=True)
    carry(ends, args)


if __name__ == "__main__":
    main()

"""A client that behaves on the wire as Phantun's does: a TCP of its own, in user space, behind an address that no kernel here has.

SYN with sequence number 0 and only a window scale, then data with ACK alone (no PSH, no options, window 65535); segments without payload mean
nothing to it, a reset ends it, FIN it does not know. Commands come by lines on stdin, answers go by lines to stdout:

  connect            -> connected
  echo <sizes ...>   sends one message of each size, waits for as many -> echoed <n>, or lost <n> when nothing has come for 3 s
  burst <n> <size>   the same for n messages of one size, which the receiver's kernel may merge
  await-reset        -> reset
  reset              ends the connection -> done
"""
import random
import select
import socket
import struct
import sys
import time

iface, own_mac, peer_mac, own, peer, own_port, peer_port = sys.argv[1:8]
own_port, peer_port = int(own_port), int(peer_port)
SYN, RST, ACK, FIN = 2, 4, 16, 1
ETHER = bytes.fromhex((peer_mac + own_mac).replace(':', '')) + b'\x08\x00'
ADDRESSES = socket.inet_aton(own) + socket.inet_aton(peer)
seq, ack = 0, 0

link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
link.bind((iface, 0x0800))


def checksum(data):
    data += b'\0' * (len(data) % 2)
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send(flags, payload=b'', options=b''):
    global seq
    offset = (5 + len(options) // 4) << 4
    tcp = struct.pack('!HHIIBBHHH', own_port, peer_port, seq, ack if flags & ACK else 0, offset, flags, 65535, 0, 0) + options + payload
    tcp = tcp[:16] + struct.pack('!H', checksum(ADDRESSES + struct.pack('!BBH', 0, 6, len(tcp)) + tcp)) + tcp[18:]
    ip = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + ADDRESSES
    link.send(ETHER + ip[:10] + struct.pack('!H', checksum(ip)) + ip[12:] + tcp)
    seq = (seq + len(payload) + (1 if flags & SYN else 0)) & 0xFFFFFFFF


def receive(seconds):
    """The next segment for us: (flags, payload), or None when none has come in time."""
    global ack
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and select.select([link], [], [], left)[0]:
        packet = link.recv(65535)[14:]
        if packet[9] != 6 or packet[12:16] != ADDRESSES[4:] or packet[16:20] != ADDRESSES[:4]:
            continue
        tcp = packet[(packet[0] & 15) * 4 : struct.unpack('!H', packet[2:4])[0]]
        source, target, its_seq, _, offset, flags = struct.unpack('!HHIIBB', tcp[:14])
        if (source, target) != (peer_port, own_port):
            continue
        payload = tcp[(offset >> 4) * 4 :]
        end = (its_seq + len(payload) + (1 if flags & SYN else 0)) & 0xFFFFFFFF
        if flags & SYN or 0 < (end - ack) & 0xFFFFFFFF < 1 << 31:
            ack = end
        return flags, payload
    return None


def echo(sizes):
    """At most 32 messages under way; an answer counts once, whatever its place in the order."""
    messages = [struct.pack('!I', i)[4 - min(4, size) :] + random.randbytes(max(0, size - 4)) for i, size in enumerate(sizes)]
    waiting, back = {}, 0
    while messages or waiting:
        while messages and sum(waiting.values()) < 32:
            message = messages.pop(0)
            waiting[message] = waiting.get(message, 0) + 1
            send(ACK, message)
        got = receive(3)
        if got is None:
            return 'lost %d of %s bytes' % (sum(waiting.values()), sorted({len(message) for message in waiting}))
        flags, payload = got
        if flags & RST:
            return 'reset by peer'
        if not payload:
            continue
        if payload not in waiting:
            return 'a message of %d bytes that was not sent' % len(payload)
        waiting[payload] -= 1
        if waiting[payload] == 0:
            del waiting[payload]
        back += 1
    return 'echoed %d' % back


def command(name, *values):
    if name == 'connect':
        send(SYN, options=b'\x01\x03\x03\x0e')
        got = receive(5)
        if got is None or got[0] & (SYN | ACK) != SYN | ACK:
            return 'no SYN-ACK: %s' % (got,)
        send(ACK)
        return 'connected'
    if name == 'echo':
        return echo([int(value) for value in values])
    if name == 'burst':
        return echo([int(values[1])] * int(values[0]))
    if name == 'await-reset':
        while (got := receive(5)) is not None:
            if got[0] & RST:
                return 'reset'
        return 'no reset'
    send(RST)
    return 'done'


print('ready', flush=True)
for line in sys.stdin:
    print(command(*line.split()), flush=True)

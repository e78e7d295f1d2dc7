#!/usr/bin/env python3
"""Writes corpus.json: texts, mostly almost JSON, and what Python's json makes of them."""
import base64, json, random

R = random.Random(1)
KEYS = ["message_type", "source_id", "destination_id", "request_id", "response_id", "transport_id",
        "with_binary", "await_response", "wait_for_ack", "with_file", "message_type_publish", "tag", "error",
        "aioc", "ackto", "x", ""]
STRINGS = ["message_type", "source_id", "destination_id", "message_type_publish", "tag", "error"]
TRUTHS = ["with_binary", "await_response", "wait_for_ack", "with_file"]
PRESENT = ["request_id", "response_id", "transport_id"]
CHARS = list("abz019 _-:/") + ['"', "\\", "\n", "\t", "\b", "\f", "\r", "\0", "\x1f", "\x7f", "é", "漢", "😀", "\ufffd",
                               "\ud83d", "\ude00", "\u2028"]
NUMBERS = ["0", "-0", "1", "-1", "10", "123456789012345678901234567890", "0.0", "-0.0", "1.5", "0e5", "0.00e-3", "1e-400",
           "1E+2", "1e400", "0.1", "NaN", "Infinity", "-Infinity", "18446744073709551615", "18446744073709551616"]
WRONG = ["01", "+1", "1.", ".5", "1e", "1e+", "-", "--1", "-NaN", "nan", "Inf", "0x1", "tru", "True", "nul", "'a'", "1 2", "[1,]",
         "[,]", "{,}", "{\"a\"}", "{\"a\":}", "{1:2}", "[1 2]", "]", "}", "[", "{", "\"", "\"\\", "\"\\u12", "\"\\u12g4\"", "\"\\x\"",
         "\"\\U0041\"", "/*c*/1", "[1]]", "\"a\nb\"", "\"a\tb\"", "", "\u00a01", "\v1", "\f1", "\ufeff1", "1_0", "\"\\u 123\"", "\"\\u+123\""]


def space():
    return R.choice(["", "", "", " ", "\n", "\t", "\r\n", "  "])


def string(s=None):
    if s is None:
        s = "".join(R.choice(CHARS) for _ in range(R.choice([0, 1, 2, 3, 7, 8, 9, 20])))
    out = []
    for c in s:
        raw = c >= " " and c not in '"\\' and not 0xD800 <= ord(c) <= 0xDFFF
        if raw and R.random() < 0.85:
            out.append(c)
        elif c == "/" and R.random() < 0.5:
            out.append("\\/")
        elif R.random() < 0.5:
            out.append(json.dumps(c)[1:-1])
        else:
            b = c.encode("utf-16-be", "surrogatepass")
            hexes = ["%04x" % (b[i] << 8 | b[i + 1]) for i in range(0, len(b), 2)]
            out += ["\\u" + (h.upper() if R.random() < 0.5 else h) for h in hexes]
    return '"' + "".join(out) + '"'


def value(depth=0):
    k = R.random()
    if k < 0.35:
        return string()
    if k < 0.6:
        return R.choice(NUMBERS)
    if k < 0.8 or depth > 3:
        return R.choice(["true", "false", "null", '""', "[]", "{}", "[ ]", "{\n}"])
    if k < 0.9:
        return "[" + ",".join(space() + value(depth + 1) + space() for _ in range(R.randrange(4))) + "]"
    return obj(depth + 1, R.randrange(4))


def obj(depth, n):
    pair = lambda: space() + string(R.choice(KEYS)) + space() + ":" + space() + value(depth) + space()
    return "{" + (",".join(pair() for _ in range(n)) or space()) + "}"


def damage(b):
    for _ in range(R.choice([1, 1, 1, 2, 3])):
        i = R.randrange(len(b) + 1)
        k = R.randrange(4)
        if k == 0:
            b = b[:i] + b[i + 1:]
        elif k == 1:
            b = b[:i] + R.choice([b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b" ", b"0", b"\n", b"\x01", b"u", b"e", b"-"]) + b[i:]
        elif k == 2:
            b = b[:i] + bytes([R.randrange(256)]) + b[i + 1:]
        else:
            b = b[:i]
    return b


def plain(s):
    return "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in s)


def refuse(_):
    raise ValueError


def judge(b):
    out = {"in": base64.b64encode(b).decode()}
    try:
        text = b.decode()
        v = json.loads(text)
    except ValueError:
        return out
    try:
        json.loads(text, parse_constant=refuse)
        out["strict"] = True
    except ValueError:
        pass
    if isinstance(v, dict):
        out["strings"] = {k: plain(v[k]) for k in STRINGS if isinstance(v.get(k), str)}
        out["true"] = [k for k in TRUTHS if v.get(k)]
        out["present"] = [k for k in PRESENT if v.get(k) is not None]
        out["keys"] = sorted(set(plain(k) for k in v))
    return out


texts = [w.encode() for w in WRONG + NUMBERS] + [('{"with_binary": %s}' % n).encode() for n in WRONG + NUMBERS]
texts += [obj(0, R.randrange(7)).encode() for _ in range(250)]
texts += [value().encode() for _ in range(50)]
texts += [damage(obj(0, R.randrange(1, 5)).encode()) for _ in range(350)]
texts += [b'{"tag": "\xff"}', b'{"tag": "\xed\xa0\x80"}', b'{"tag": "\xc0\x80"}', b'{"tag": "\xf4\x90\x80\x80"}', b'{"\xff": 1}',
          b'\xef\xbb\xbf{}', b'{}\xff', b'{"tag": "a\xc3"}', b'{"tag": "12345678\xc3\xa912345678\xe6\xbc\xa2"}']
with open("corpus.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(judge(b)) for b in dict.fromkeys(texts)) + "\n]\n")

"""The official command line against a simulator of its own, whose clock it sets: attach.py TCCLI HOST:PORT.

Prints a line for each check; the exit code is 0 only if all pass.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request

TCCLI, ENDPOINT = sys.argv[1:]
ID, KEY, SESSION = "AKIDEXAMPLE", "SECRETEXAMPLE", "1326515201117065216"
PHONES = ["phone-tccli-1", "phone-tccli-é"]
failed = False


def switch_slaves(secret_id: str, secret_key: str, kind: int, server: str = ENDPOINT) -> subprocess.CompletedProcess:
    """Makes one call; kind is 1 to attach, 2 to detach."""
    command = [TCCLI, "gsplugin", "SwitchCloudPhoneMultipleStreamSessionSlaves", "--SessionId", SESSION, "--Type", str(kind)]
    command += ["--SlaveInstanceIds", json.dumps(PHONES, ensure_ascii=False), "--endpoint", "http://" + server]
    command += ["--secretId", secret_id, "--secretKey", secret_key, "--region", "ap-guangzhou"]
    # A home of its own: tccli reads and writes profiles there.
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home, "NO_PROXY": "127.0.0.1,localhost", "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)


def report(name: str, ok: bool, seen: str) -> None:
    global failed
    failed |= not ok
    print(f"{'ok' if ok else 'FAILED'}: {name}: {seen}", flush=True)


def succeeds(name: str, kind: int) -> None:
    run = switch_slaves(ID, KEY, kind)
    ok = run.returncode == 0 and json.loads(run.stdout).get("SuccessInstanceIds") == PHONES
    report(name, ok, " ".join((run.stdout + run.stderr).split()))


def is_refused(name: str, code: str, run: subprocess.CompletedProcess) -> None:
    seen = " ".join((run.stdout + run.stderr).split())
    report(name, run.returncode != 0 and "TencentCloudSDKException" in seen and f"code:{code} " in seen, f"exit {run.returncode}: {seen}")


def something_that_changes(old: bytes, new: bytes) -> str:
    """Alters the body after it was signed, as something on the way might. Serves one connection; answers where it listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = ENDPOINT.split(":")

    def copy(source: socket.socket, target: socket.socket, change) -> None:
        while piece := source.recv(65536):
            target.sendall(change(piece))
        target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with listener, listener.accept()[0] as client, socket.create_connection((host, int(port))) as server:
            back = threading.Thread(target=copy, args=(server, client, bytes))
            back.start()
            copy(client, server, lambda piece: piece.replace(old, new))
            back.join()

    threading.Thread(target=serve, daemon=True).start()
    return "127.0.0.1:" + str(listener.getsockname()[1])


def set_clock(seconds: int) -> None:
    body = json.dumps({"clockOffsetSeconds": seconds}).encode()
    request = urllib.request.Request(f"http://{ENDPOINT}/admin/faults", data=body, method="PUT")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()


succeeds("attach", 1)
succeeds("detach", 2)
is_refused("wrong key", "AuthFailure.SignatureFailure", switch_slaves(ID, "WRONG", 1))
is_refused("unknown key", "AuthFailure.SecretIdNotFound", switch_slaves("AKIDSTRANGER", KEY, 1))
changing = something_that_changes(b"phone-tccli-1", b"phone-tccli-2")
is_refused("changed body", "AuthFailure.SignatureFailure", switch_slaves(ID, KEY, 1, changing))
set_clock(600)
is_refused("old timestamp", "AuthFailure.SignatureExpire", switch_slaves(ID, KEY, 1))
set_clock(0)
sys.exit(failed)

"""Signs with the official SDK's own code: reads requests as JSON lines, prints the headers of each as a JSON line.

A request is {"id", "key", "token", "region", "host", "service", "timestamp", "body"}; the body is signed as it stands, where the SDK would write it
from parameters, and the timestamp stands in for the clock.
"""

import json
import sys
import types

from tencentcloud.common import abstract_client
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import Credential
from tencentcloud.common.http.request import RequestInternal
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile


def headers(request: dict) -> dict:
    abstract_client.json = types.SimpleNamespace(dumps=lambda body: body)
    abstract_client.time = types.SimpleNamespace(time=lambda: request["timestamp"])
    credential = Credential(request["id"], request["key"], request["token"])
    profile = ClientProfile(httpProfile=HttpProfile(endpoint=request["host"]))
    client = CommonClient(request["service"], "2019-11-18", credential, request["region"] or "", profile)
    built = RequestInternal(request["host"], "POST", "/")
    client._build_req_inter("SwitchCloudPhoneMultipleStreamSessionSlaves", request["body"], built)
    return {name.lower(): value for name, value in built.header.items()}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(headers(json.loads(line))))


if __name__ == "__main__":
    main()

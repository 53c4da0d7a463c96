"""Attaches one phone with the official SDK: attach.py ENDPOINT SESSION PHONE.

The keys come from TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY. Prints the answer as JSON; for an error of the service
{"code": …}, with exit code 1.
"""

import json
import os
import sys

from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import Credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile


def main(endpoint: str, session: str, phone: str) -> int:
    credential = Credential(os.environ["TENCENTCLOUD_SECRET_ID"], os.environ["TENCENTCLOUD_SECRET_KEY"])
    profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=endpoint))
    client = CommonClient("gs", "2019-11-18", credential, "ap-guangzhou", profile)
    parameters = {"SessionId": session, "Type": 1, "SlaveInstanceIds": [phone]}
    try:
        print(json.dumps(client.call_json("SwitchCloudPhoneMultipleStreamSessionSlaves", parameters)))
    except TencentCloudSDKException as error:
        print(json.dumps({"code": error.get_code()}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

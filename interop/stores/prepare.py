"""Makes the bucket and the container `chancery` in the emulators that `cargo xtask stores` starts.

usage: prepare.py S3_URL AZURE_URL; an empty URL is passed over
"""

import base64
import hashlib
import hmac
import os
import sys
import urllib.request
from email.utils import formatdate

import boto3

NAME = "chancery"


def s3(endpoint):
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=NAME)


def azure(endpoint):
    # A request signed with the account's key, as the Blob service's reference describes it.
    account = os.environ["AZURE_STORAGE_ACCOUNT_NAME"]
    key = base64.b64decode(os.environ["AZURE_STORAGE_ACCOUNT_KEY"])
    headers = f"x-ms-date:{formatdate(usegmt=True)}\nx-ms-version:2023-11-03\n"
    resource = f"/{account}/{account}/{NAME}\nrestype:container"
    text = "PUT" + 12 * "\n" + headers + resource
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(f"{endpoint}/{NAME}?restype=container", method="PUT")
    for line in headers.splitlines():
        request.add_header(*line.split(":", 1))
    request.add_header("Authorization", f"SharedKey {account}:{base64.b64encode(mac).decode()}")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201, answer.status


if __name__ == "__main__":
    s3_url, azure_url = sys.argv[1:]
    if s3_url:
        s3(s3_url)
    if azure_url:
        azure(azure_url)

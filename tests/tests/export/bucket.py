"""Fetches what can be seen of the bucket `fleet` into a folder, and prints its names and how many uploads are unfinished: PORT FOLDER"""

import json
import os
import sys

import boto3

client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{sys.argv[1]}", region_name="us-east-1")
names = [one["Key"] for page in client.get_paginator("list_objects_v2").paginate(Bucket="fleet") for one in page.get("Contents", [])]
for name in names:
    path = os.path.join(sys.argv[2], name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    client.download_file("fleet", name, path)
uploads = client.list_multipart_uploads(Bucket="fleet").get("Uploads", [])
print(json.dumps({"names": names, "unfinished": len(uploads)}))

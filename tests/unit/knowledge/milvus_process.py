"""The server that `milvus-lite server` runs: prints its port, ends with its stdin.

python milvus_process.py FOLDER PORT      # 0: any that is free, so that no two tests share one
"""

import os
import sys

from milvus_lite.adapter.grpc.server import start_server_in_thread


def main():
    folder, port = sys.argv[1:]
    server = start_server_in_thread(folder, host="127.0.0.1", port=int(port))
    print(server[2], flush=True)  # noqa: T201
    sys.stdin.read()  # also when whoever started it was killed
    os._exit(0)


if __name__ == "__main__":
    main()

"""One call of MLServer by the Triton client's libraries, which speak KServe v2: REST or gRPC, always over TLS.

    client.py rest|grpc AUTHORITY BASE HOST CA KEY WHAT

BASE is the path under which a REST server is; HOST is what a gRPC call names as its authority. WHAT is `infer`, `ready`,
`metadata` or `unload`. Prints one JSON object: the result, or the error with its status.
"""

import json
import ssl
import sys

import numpy
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [5.9, 3.0, 4.2, 1.5], [6.3, 3.3, 6.0, 2.5]]


def main(protocol, authority, base, host, ca, key, what):
    headers = {"authorization": f"Bearer {key}"}
    if protocol == "rest":
        library = tritonclient.http
        client = library.InferenceServerClient(
            authority + base, ssl=True, ssl_options={"ca_certs": ca}, ssl_context_factory=ssl.create_default_context
        )
        more = {}
    else:
        library = tritonclient.grpc
        options = [("grpc.default_authority", host), ("grpc.ssl_target_name_override", host)]
        client = library.InferenceServerClient(authority, ssl=True, root_certificates=ca, channel_args=options)
        more = {"client_timeout": 30}
    try:
        return ask(library, client, headers, what, more)
    except InferenceServerException as error:
        return {"error": error.message(), "status": str(error.status())}
    finally:
        client.close()


def ask(library, client, headers, what, more):
    if what == "ready":
        return {"ready": client.is_model_ready("iris", headers=headers, **more)}
    if what == "metadata":
        metadata = client.get_model_metadata("iris", headers=headers, **more)
        return {"name": metadata["name"] if isinstance(metadata, dict) else metadata.name}
    if what == "unload":
        client.unload_model("iris", headers=headers, **more)
        return {"unloaded": True}
    flowers = library.InferInput("flowers", [len(FLOWERS), len(FLOWERS[0])], "FP64")
    flowers.set_data_from_numpy(numpy.array(FLOWERS), **({"binary_data": False} if library is tritonclient.http else {}))
    more = more if library is tritonclient.grpc else {}
    answer = client.infer("iris", [flowers], headers=headers, **more)
    return {"species": [as_text(value) for value in answer.as_numpy("species").flatten()]}


def as_text(value):
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))

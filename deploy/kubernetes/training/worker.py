"""Makes a pod of an Indexed Job a worker of one cluster: writes TF_CONFIG, and then becomes the training.

    WORKERS=4 WORKER_ADDRESS=translate-train-{index}.translate-train:2222 python worker.py -m apps.translate train

Kubernetes gives every pod of such a Job its number in JOB_COMPLETION_INDEX, and the host name JOB-NUMBER within the
headless service that the pods name as their subdomain: so each pod knows all addresses before any other pod is there.
"""

import json
import os
import sys
from collections.abc import Mapping


def tf_config(environment: Mapping[str, str]) -> str:
    """TF_CONFIG of one pod.

    Args:
        environment: has `JOB_COMPLETION_INDEX`, which Kubernetes sets, `WORKERS`, how many pods there are, and
            `WORKER_ADDRESS`, host and port of a pod with `{index}` in place of its number.

    Raises:
        ValueError: a variable is missing or makes no sense. The message says which.
    """
    index, count = (_number(environment, name) for name in ("JOB_COMPLETION_INDEX", "WORKERS"))
    address = environment.get("WORKER_ADDRESS", "")
    if index >= count:
        raise ValueError(f"JOB_COMPLETION_INDEX is {index}, and WORKERS {count}: give WORKERS the Job's completions")
    if "{index}" not in address:
        raise ValueError(
            f"WORKER_ADDRESS has no {{index}} in it; give such as job-{{index}}.service:2222, not {address!r}"
        )
    addresses = [address.replace("{index}", str(number)) for number in range(count)]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not value.isdecimal():
        raise ValueError(f"{name} takes a whole number, not {value!r}; see job.yaml")
    return int(value)


if __name__ == "__main__":
    try:
        os.environ["TF_CONFIG"] = tf_config(os.environ)
    except ValueError as error:
        sys.exit(f"error: {error}")
    # The same process, so that signals and the exit code are the training's own.
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])

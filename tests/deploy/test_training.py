"""The manifests that train on Kubernetes: checked against one another and against how training behaves, and the worker
that they start, run for real as two processes."""

import importlib.util
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from apps.translate.config import TranslateConfig
from pipelines.cluster import Cluster
from pipelines.config import parse
from tests.apps.translate.conftest import TINY

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
TRAINING = KUBERNETES / "training"
WORKER = TRAINING / "worker.py"


def one(file):
    return yaml.safe_load(file.read_text())


JOB, SERVICE, VOLUME, KUSTOMIZATION = (
    one(TRAINING / f"{name}.yaml") for name in ("job", "service", "volume", "kustomization")
)
TFJOB = one(KUBERNETES / "tfjob.yaml")
TF_WORKER = TFJOB["spec"]["tfReplicaSpecs"]["Worker"]
PODS = {"job": JOB["spec"]["template"], "tfjob": TF_WORKER["template"]}
CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}


def variables(container):
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.fixture
def worker():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pod_of_the_job_gets_its_place_in_one_cluster(worker):
    count = JOB["spec"]["completions"]
    environment = variables(CONTAINERS["job"])
    assert JOB["spec"]["completionMode"] == "Indexed"
    assert JOB["spec"]["parallelism"] == count == int(environment["WORKERS"])
    name, port = JOB["metadata"]["name"], SERVICE["spec"]["ports"][0]["port"]
    # As Kubernetes names the pods of an Indexed Job.
    hosts = tuple(f"{name}-{index}.{SERVICE['metadata']['name']}:{port}" for index in range(count))
    for index in range(count):
        config = worker.tf_config(environment | {"JOB_COMPLETION_INDEX": str(index)})
        assert Cluster.from_environment({"TF_CONFIG": config}) == Cluster(hosts, index)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"JOB_COMPLETION_INDEX": "4"}, "JOB_COMPLETION_INDEX is 4, and WORKERS 4"),
        ({"JOB_COMPLETION_INDEX": ""}, "JOB_COMPLETION_INDEX takes a whole number"),
        ({"WORKERS": "four"}, "WORKERS takes a whole number, not 'four'"),
        ({"WORKER_ADDRESS": "translate-train:2222"}, "has no {index} in it"),
    ],
)
def test_a_wrong_environment_is_one_line(change, part):
    environment = os.environ | variables(CONTAINERS["job"]) | {"JOB_COMPLETION_INDEX": "0"} | change
    done = subprocess.run([sys.executable, WORKER, "-c", ""], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ") and part in done.stderr


def test_pods_find_one_another():
    spec, labels = PODS["job"]["spec"], PODS["job"]["metadata"]["labels"]
    assert spec["subdomain"] == SERVICE["metadata"]["name"]
    assert SERVICE["spec"]["clusterIP"] == "None" and SERVICE["spec"]["publishNotReadyAddresses"]
    assert SERVICE["spec"]["selector"].items() <= labels.items()
    for name, port in (("job", SERVICE["spec"]["ports"][0]["name"]), ("tfjob", "tfjob-port")):
        assert CONTAINERS[name]["ports"] == [{"name": port, "containerPort": SERVICE["spec"]["ports"][0]["port"]}]


def test_the_operator_is_given_what_it_looks_for():
    """Its TF_CONFIG, as it documents it, is one that training takes."""
    assert TFJOB["apiVersion"] == "kubeflow.org/v1" and list(TFJOB["spec"]["tfReplicaSpecs"]) == ["Worker"]
    assert CONTAINERS["tfjob"]["name"] == "tensorflow" and "TF_CONFIG" not in variables(CONTAINERS["tfjob"])
    hosts = tuple(f"{TFJOB['metadata']['name']}-worker-{i}.default.svc:2222" for i in range(TF_WORKER["replicas"]))
    task = {"type": "worker", "index": 1}
    written = json.dumps({"cluster": {"worker": hosts}, "task": task, "environment": "cloud"})
    assert Cluster.from_environment({"TF_CONFIG": written}) == Cluster(hosts, 1)


@pytest.mark.parametrize("name", PODS)
def test_training_takes_the_flags_and_finds_the_volume(name):
    container, pod = CONTAINERS[name], PODS[name]["spec"]
    config = parse(TranslateConfig(), container["args"], "train")
    config.check()
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == mounts.keys()
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == VOLUME["metadata"]["name"]
    assert VOLUME["spec"]["accessModes"] == ["ReadWriteMany"]
    written = [config.run_dir, *(Path(value) for value in variables(container).values() if value.startswith("/"))]
    assert all(any(path.is_relative_to(mount) for mount in mounts.values()) for path in written)
    assert config.run_dir.is_relative_to(mounts["runs"])  # the same in every pod, and there after a restart
    assert container["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]


def test_both_ways_train_alike():
    assert CONTAINERS["job"]["args"] == CONTAINERS["tfjob"]["args"]
    assert CONTAINERS["job"]["command"] == ["python", "worker.py", *CONTAINERS["tfjob"]["command"][1:]]
    assert JOB["spec"]["completions"] == TF_WORKER["replicas"]
    (image,) = KUSTOMIZATION["images"]
    assert CONTAINERS["job"]["image"] == image["name"]
    assert CONTAINERS["tfjob"]["image"] == f"{image['newName']}:{image['newTag']}"


def test_a_lost_worker_is_not_the_end():
    assert PODS["job"]["spec"]["restartPolicy"] == "Never"  # or Kubernetes refuses a limit for each index
    assert JOB["spec"]["backoffLimitPerIndex"] > 1
    (values,) = [
        rule["onExitCodes"]["values"] for rule in JOB["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    ]
    # The codes with which training ends on SIGTERM; 1, another worker lost, and 2 are tried again and counted.
    assert values == [130, 143]
    assert TF_WORKER["restartPolicy"] == "OnFailure"
    for container in CONTAINERS.values():
        pause = 360  # seconds, the longest before Kubernetes tries again
        assert parse(TranslateConfig(), container["args"], "train").rendezvous_seconds > pause


def test_the_image_has_all_that_is_run():
    lines = [
        shlex.split(line) for line in (TRAINING / "Dockerfile").read_text().splitlines() if line.startswith("COPY")
    ]
    copied = [source for _, *sources, _ in lines for source in sources]
    assert all((ROOT / source).exists() for source in copied)
    assert {"apps", "layers", "pipelines", "pyproject.toml", str(WORKER.relative_to(ROOT))} <= set(copied)
    listed = {(TRAINING / resource) for resource in KUSTOMIZATION["resources"]}
    assert listed == set(TRAINING.glob("*.yaml")) - {TRAINING / "kustomization.yaml"}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_renders_the_job():
    rendered = subprocess.run(["kubectl", "kustomize", TRAINING], capture_output=True, text=True, check=True).stdout
    objects = {found["kind"]: found for found in yaml.safe_load_all(rendered)}
    assert objects.keys() == {"Job", "Service", "PersistentVolumeClaim"}
    (container,) = objects["Job"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == CONTAINERS["tfjob"]["image"]


def consecutive_ports():
    """A number whose two continuations by one digit are ports on which nobody listens."""
    for stem in range(2000, 6000):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("", 10 * stem))
                second.bind(("", 10 * stem + 1))
            except OSError:
                continue
            return stem
    raise AssertionError("no two free ports")


@pytest.mark.slow
def test_two_pods_train_and_go_on(tmp_path):
    """The Job's own command on two processes of this machine, twice: with other addresses and a small model."""
    from apps.translate import sample

    container, pairs = CONTAINERS["job"], sample.generate(88, seed=5)
    for name, part in {"train": pairs[:64], "validation": pairs[64:]}.items():
        (tmp_path / f"{name}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in part))
    files = [f"--{name}={tmp_path / name}.tsv" for name in ("train", "validation")]
    address = f"localhost:{consecutive_ports()}{{index}}"
    environment = os.environ | variables(container) | {"WORKERS": "2", "WORKER_ADDRESS": address, "HOME": str(tmp_path)}
    script = [str(WORKER) if part == "worker.py" else part for part in container["command"][1:]]

    def train(steps):
        own = [f"--run-dir={tmp_path / 'run'}", *files, *TINY, f"--max-steps={steps}"]
        pods = [
            subprocess.Popen(
                [sys.executable, *script, *container["args"], *own],
                cwd=ROOT,
                env=environment | {"JOB_COMPLETION_INDEX": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]
        try:
            said = [pod.communicate(timeout=240) for pod in pods]
        finally:
            for pod in pods:
                pod.kill()
        assert [pod.returncode for pod in pods] == [0, 0], said
        return said[0][0]

    out = train(2)
    assert "2 replicas on 2 workers" in out and "trained to step 2" in out
    assert "resumed from step 2" in train(3)

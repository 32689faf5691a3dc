"""The files for Kubernetes: valid, and in agreement with what they start."""

import pathlib
import subprocess
import sys

import kubernetes_validate
import yaml
from absl.testing import absltest, parameterized

from bert_keras.serving import tf_serving_files
from bert_keras.training import cluster_hosts, trainer

ROOT = pathlib.Path(__file__).absolute().parents[2]
FOLDER = ROOT / "examples" / "kubernetes"


def objects(name):
    """The objects of a file, by kind."""
    loaded = yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
    return {each["kind"]: each for each in loaded}


def container(item):
    (only,) = item["spec"]["template"]["spec"]["containers"]
    return only


class KubernetesTest(parameterized.TestCase):
    @parameterized.parameters(
        ("train.yaml", {"Service", "Job"}),
        ("serve.yaml", {"Deployment", "Service"}),
    )
    def test_objects_fit_the_schemas(self, name, kinds):
        found = objects(name)
        self.assertEqual(set(found), kinds)
        for each in found.values():
            for version in ("1.29.0", "1.37.0"):
                kubernetes_validate.validate(each, version, strict=True)

    def test_all_pods_of_the_job_are_workers(self):
        found = objects("train.yaml")
        job, service = found["Job"], found["Service"]
        spec, template = job["spec"], job["spec"]["template"]["spec"]
        environment = {
            each["name"]: each["value"] for each in container(job)["env"]
        }
        self.assertEqual(spec["completionMode"], "Indexed")
        # A pod that was asked to stop is started again, as often as it takes.
        self.assertEqual(template["restartPolicy"], "Never")
        policy = spec["podFailurePolicy"]["rules"][0]
        self.assertEqual(policy["action"], "Ignore")
        self.assertEqual(policy["onExitCodes"]["values"], [trainer.STOPPED])
        self.assertEqual(spec["completions"], spec["parallelism"])
        port = container(job)["ports"][0]["containerPort"]
        for index in range(spec["completions"]):
            hosts = cluster_hosts.read(
                environment | {"JOB_COMPLETION_INDEX": str(index)}
            )
            self.assertEqual(hosts.count, spec["completions"])
            # The name that the headless service gives to the pod.
            self.assertEqual(
                hosts.jobs["worker"][index],
                f"{job['metadata']['name']}-{index}."
                f"{template['subdomain']}:{port}",
            )
        self.assertEqual(template["subdomain"], service["metadata"]["name"])
        self.assertEqual(service["spec"]["clusterIP"], "None")
        self.assertEqual(
            service["spec"]["selector"],
            {"job-name": job["metadata"]["name"]},
        )

    def test_the_commands_know_the_flags(self):
        worker = container(objects("train.yaml")["Job"])
        _, name = worker["command"]
        text = subprocess.run(
            [sys.executable, "-m", f"trainers.{name}", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for flag in worker["args"]:
            self.assertIn(f"\n  {flag.partition('=')[0]}", text)

    def test_the_server_is_that_of_docker_compose(self):
        server = container(objects("serve.yaml")["Deployment"])
        files = tf_serving_files._files("films")
        composed = yaml.safe_load(files["docker-compose.yaml"])
        composed = composed["services"]["films"]
        self.assertEqual(server["image"], composed["image"])
        self.assertEqual(server["args"], composed["command"])
        self.assertEqual(
            {each["name"]: each["value"] for each in server["env"]},
            composed["environment"],
        )
        (mount,) = server["volumeMounts"]
        self.assertEqual(mount["mountPath"], "/models/films")
        ports = [each["containerPort"] for each in server["ports"]]
        self.assertEqual(ports, [8500, 8501])

    def test_kserve_names_the_runtime_and_a_folder(self):
        service = objects("kserve.yaml")["InferenceService"]
        model = service["spec"]["predictor"]["model"]
        self.assertEqual(model["modelFormat"], {"name": "tensorflow"})
        image = tf_serving_files.image()
        self.assertEqual(image, f"tensorflow/serving:{model['runtimeVersion']}")
        claim = objects("serve.yaml")["Deployment"]["spec"]["template"]["spec"][
            "volumes"
        ][0]["persistentVolumeClaim"]["claimName"]
        self.assertEqual(model["storageUri"], f"pvc://{claim}/served/films")


if __name__ == "__main__":
    absltest.main()

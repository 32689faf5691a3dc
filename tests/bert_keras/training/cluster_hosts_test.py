"""The workers of a run, from the variables of three schedulers."""

import json

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.training import cluster_hosts

SLURM = {
    "SLURM_JOB_ID": "71234",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "gpu[08-09],big",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_PROCID": "3",
}
KUBERNETES = {
    "WORKER_HOSTS": "train-[0-2].train:12345",
    "JOB_COMPLETION_INDEX": "2",
}
TF_CONFIG = {
    "cluster": {"chief": ["a:1"], "worker": ["b:2"], "evaluator": ["c:3"]},
    "task": {"type": "worker", "index": 0},
}


class ClusterHostsTest(parameterized.TestCase):
    def test_tasks_of_srun_are_workers_in_order(self):
        hosts = cluster_hosts.read(SLURM)
        self.assertEqual(
            hosts.jobs["worker"],
            ["gpu08:30976", "gpu08:30977", "gpu09:30976", "gpu09:30977"]
            + ["big:30976"],
        )
        self.assertEqual(
            json.loads(hosts.tf_config())["task"],
            {"type": "worker", "index": 3},
        )

    def test_pods_of_an_indexed_job_are_workers(self):
        hosts = cluster_hosts.read(KUBERNETES)
        self.assertEqual(
            json.loads(hosts.tf_config()),
            {
                "cluster": {
                    "worker": [
                        "train-0.train:12345",
                        "train-1.train:12345",
                        "train-2.train:12345",
                    ]
                },
                "task": {"type": "worker", "index": 2},
            },
        )

    def test_evaluators_do_not_count(self):
        hosts = cluster_hosts.read({"TF_CONFIG": json.dumps(TF_CONFIG)})
        self.assertEqual(hosts.count, 2)
        self.assertEqual(hosts.task, ("worker", 0))

    def test_tf_config_counts_before_slurm_and_this_before_kubernetes(self):
        everything = SLURM | KUBERNETES
        self.assertEqual(cluster_hosts.read(everything).source, "SLURM")
        everything["TF_CONFIG"] = json.dumps(TF_CONFIG)
        self.assertEqual(cluster_hosts.read(everything).source, "TF_CONFIG")

    @parameterized.parameters(
        ({},),
        # The batch script itself is no task, and one task is no cluster.
        ({"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"},),
        # An Indexed Job whose pods do not work together.
        ({"JOB_COMPLETION_INDEX": "3"},),
    )
    def test_no_cluster(self, environment):
        self.assertIsNone(cluster_hosts.read(environment))

    @parameterized.parameters(
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a[1-3,07],b", ["a1", "a2", "a3", "a07", "b"]),
        ("a[8-11]", ["a8", "a9", "a10", "a11"]),
        ("a[08-10]-x", ["a08-x", "a09-x", "a10-x"]),
        ("r[1-2]n[3,5]", ["r1n3", "r1n5", "r2n3", "r2n5"]),
    )
    def test_lists_of_machines(self, names, expected):
        self.assertEqual(cluster_hosts.expand(names, "V"), expected)

    def test_neighbouring_jobs_and_steps_have_ports_of_their_own(self):
        ports = set()
        for job in ("100", "101", "102"):
            for step in ("0", "1"):
                hosts = cluster_hosts.read(
                    SLURM | {"SLURM_JOB_ID": job, "SLURM_STEP_ID": step}
                )
                own = {each.split(":")[1] for each in hosts.jobs["worker"]}
                self.assertEmpty(own & ports)
                ports |= own

    @parameterized.parameters("*", "*:cyclic", "block:cyclic", "block,Pack")
    def test_tasks_in_blocks(self, layout):
        hosts = cluster_hosts.read(SLURM | {"SLURM_DISTRIBUTION": layout})
        self.assertEqual(hosts.count, 5)

    def test_one_task_a_node_needs_no_blocks(self):
        changes = {
            "SLURM_STEP_NUM_TASKS": "3",
            "SLURM_PROCID": "1",
            "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
            "SLURM_DISTRIBUTION": "cyclic",
        }
        self.assertEqual(cluster_hosts.read(SLURM | changes).count, 3)

    @parameterized.parameters(
        *(
            (SLURM, {"SLURM_STEP_NODELIST": names}, "SLURM_STEP_NODELIST=.*a.1")
            for names in ("a[1-", "a[3-1]", "a[x]", "a b", "a[1],,b", "[1]a b")
            + ("n[1-99999]x[1-99999]", f"a[{'1' * 5000}]")
        ),
        (SLURM, {"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST is not set"),
        (SLURM, {"SLURM_STEP_NODELIST": "a"}, "5 tasks on 1 nodes"),
        (SLURM, {"SLURM_STEP_TASKS_PER_NODE": "2,x,1"}, r"2\(x3\),1"),
        (
            SLURM,
            {"SLURM_STEP_TASKS_PER_NODE": "1(x9999999999)"},
            "expected num",
        ),
        (SLURM, {"SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, "expected 5 tasks"),
        (SLURM, {"SLURM_PROCID": "5"}, "SLURM_PROCID=5"),
        (SLURM, {"SLURM_PROCID": "-1"}, "a whole number of 0 or more"),
        (SLURM, {"SLURM_DISTRIBUTION": "cyclic"}, "expected block"),
        (KUBERNETES, {"JOB_COMPLETION_INDEX": "3"}, "names 3 workers, .*=3"),
        (KUBERNETES, {"JOB_COMPLETION_INDEX": ""}, "a whole number"),
        *(
            (KUBERNETES, {"WORKER_HOSTS": hosts}, "WORKER_HOSTS=.*expected")
            for hosts in ("a:1,b,c:1", "a:1,b:99999999,c:2", "a:1,a:1,b:2")
            + ("http://a:1,b:1,c:1", "[::1]:1,b:1,c:1", "a:1x,b:1,c:1")
        ),
    )
    def test_what_defines_no_cluster_is_refused(self, right, wrong, message):
        with self.assertRaisesRegex(errors.InputError, message):
            cluster_hosts.read(right | wrong)

    def test_what_is_not_set_is_said(self):
        for values, name in (
            (SLURM, "SLURM_PROCID"),
            (KUBERNETES, "JOB_COMPLETION_INDEX"),
        ):
            less = {k: v for k, v in values.items() if k != name}
            with self.assertRaisesRegex(errors.InputError, f"{name}.*not set"):
                cluster_hosts.read(less)

    @parameterized.parameters(
        {"index": -1}, {"index": 1}, {"index": "0"}, {"type": "ps"}
    )
    def test_a_tf_config_without_this_task_is_refused(self, **task):
        config = TF_CONFIG | {"task": TF_CONFIG["task"] | task}
        with self.assertRaisesRegex(errors.InputError, "expected JSON like"):
            cluster_hosts.read({"TF_CONFIG": json.dumps(config)})

    def test_lines_of_yaml_may_end(self):
        hosts = KUBERNETES["WORKER_HOSTS"] + "\n"
        found = cluster_hosts.read(KUBERNETES | {"WORKER_HOSTS": hosts})
        self.assertEqual(found.jobs["worker"][2], "train-2.train:12345")


if __name__ == "__main__":
    absltest.main()

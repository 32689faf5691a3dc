from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.serving import compatibility
from tests.bert_keras.serving.manifests import MANIFEST


class CompatibilityTest(parameterized.TestCase):
    @parameterized.parameters(*compatibility.SERVERS)
    def test_a_server_needs_the_attributes_that_are_set(self, server):
        problems = compatibility.problems(MANIFEST, server)
        # Measured: TensorFlow 2.12.1 loads such a model and fails in its loop,
        # "Trying to modify element 0 in a list with 0 elements"; 2.18.1 gives
        # the answers of 2.21.0.
        if server == "2.12":
            self.assertLen(problems, 1)
            self.assertIn("resize_if_index_out_of_bounds", problems[0])
        else:
            self.assertEmpty(problems)

    @parameterized.parameters(
        ("DecodeWebP", "2.19", "2.20"),
        ("GlobalShuffleDataset", "2.16", "2.17"),
        ("RFFTND", "2.14", "2.15"),
    )
    def test_a_server_needs_the_ops(self, op, without, having):
        described = MANIFEST | {"ops": [*MANIFEST["ops"], op]}
        (problem,) = compatibility.problems(described, without)
        self.assertIn(f"{op} was added in TensorFlow {having}", problem)
        self.assertEmpty(compatibility.problems(described, having))

    def test_an_op_that_nobody_knows_is_a_problem_of_every_server(self):
        for described in (
            MANIFEST | {"ops": ["MyOwnOp"]},
            MANIFEST | {"text_ops": ["SentencepieceOp2"]},
        ):
            self.assertEmpty(compatibility.servers(described))

    def test_an_older_manifest_counts_as_if_it_set_all_attributes(self):
        described = {k: v for k, v in MANIFEST.items() if k != "attributes"}
        self.assertNotEmpty(compatibility.problems(described, "2.15"))
        self.assertEmpty(compatibility.problems(described, "2.16"))
        described["versions"] = {"tensorflow": "2.16.2"}
        self.assertNotEmpty(compatibility.problems(described, "2.15"))
        described["versions"] = {"tensorflow": "2.15.1"}
        self.assertEmpty(compatibility.problems(described, "2.15"))

    @parameterized.parameters("2.11.0", "2.21.0", "3.0", "latest", "", "2")
    def test_a_server_that_is_not_known(self, server):
        with self.assertRaisesRegex(errors.InputError, "server"):
            compatibility.require_server(server)


if __name__ == "__main__":
    absltest.main()

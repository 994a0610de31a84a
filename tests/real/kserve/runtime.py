"""An MLServer runtime of our own: flowers in, species out, with the weights that model/train.py fits."""

import json
import os
import pathlib

import numpy
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

WEIGHTS = pathlib.Path(os.environ["AZUREML_MODEL_DIR"], "weights.json")


class Iris(MLModel):
    async def load(self):
        model = json.loads(WEIGHTS.read_text())
        self.classes = model["classes"]
        self.mean, self.deviation = numpy.array(model["mean"]), numpy.array(model["deviation"])
        self.weights = numpy.array(model["weights"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        flowers = NumpyCodec.decode_input(payload.inputs[0])
        if flowers.shape[1:] != self.mean.shape:
            raise InferenceError(f"a flower has {len(self.mean)} measurements")
        inputs = numpy.hstack([numpy.ones((len(flowers), 1)), (flowers - self.mean) / self.deviation])
        species = [self.classes[best] for best in (inputs @ self.weights.T).argmax(axis=1)]
        output = StringCodec.encode_output("species", species)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])

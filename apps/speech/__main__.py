"""`python -m apps.speech`: train, evaluate and use a model that writes down what is said."""

from apps.speech.config import SpeechConfig, SpeechEvaluateOptions, SpeechExportOptions, SpeechPredictOptions
from pipelines.cli import App, main


def _task():
    from apps.speech.task import SpeechTask

    return SpeechTask


APP = App(
    name="speech",
    summary="Transcribe recordings with a recurrent network or a conformer.",
    config=SpeechConfig,
    task=_task,
    evaluate=SpeechEvaluateOptions,
    predict=SpeechPredictOptions,
    export=SpeechExportOptions,
)

if __name__ == "__main__":
    main(APP)

"""`python -m apps.nlp`: train, evaluate and use a model that classifies, compares or writes text."""

from apps.nlp.config import NlpConfig, NlpExportOptions, NlpPredictOptions
from pipelines.cli import App, main


def _task():
    from apps.nlp.tasks import TASKS

    def of(config, *arguments):
        return TASKS[config.task](config, *arguments)

    return of


APP = App(
    name="nlp",
    summary="Classify, compare and write text.",
    config=NlpConfig,
    task=_task,
    predict=NlpPredictOptions,
    export=NlpExportOptions,
)

if __name__ == "__main__":
    main(APP)

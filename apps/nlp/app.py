"""What the command line has to know of this app."""

from apps.nlp import plan
from apps.nlp.config import NlpConfig, NlpExportOptions, NlpPredictOptions
from pipelines.cli import App, Command


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
    commands={"plan": Command("count what training a transformer would take", plan.parse, plan.run)},
)

"""`python -m apps.translate`: train, evaluate and use a model that translates."""

from apps.translate.config import (
    TranslateConfig,
    TranslateEvaluateOptions,
    TranslateExplainOptions,
    TranslateExportOptions,
    TranslatePredictOptions,
)
from pipelines.cli import App, main


def _task():
    from apps.translate.task import TranslateTask

    return TranslateTask


APP = App(
    name="translate",
    summary="Translate text with a Transformer or a recurrent network.",
    config=TranslateConfig,
    task=_task,
    evaluate=TranslateEvaluateOptions,
    predict=TranslatePredictOptions,
    explain=TranslateExplainOptions,
    export=TranslateExportOptions,
)

if __name__ == "__main__":
    main(APP)

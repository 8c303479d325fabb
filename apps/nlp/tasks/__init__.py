"""What is learnt from text: a file for each task."""

from apps.nlp.tasks.classify import ClassifyTask
from apps.nlp.tasks.generate import GenerateTask
from apps.nlp.tasks.pretrain import PretrainTask
from apps.nlp.tasks.similarity import SimilarityTask

TASKS = {"classify": ClassifyTask, "similarity": SimilarityTask, "generate": GenerateTask, "pretrain": PretrainTask}

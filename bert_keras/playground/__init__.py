"""A web page on this machine to try a model.

>>> import bert_keras
>>> from bert_keras import playground
>>> playground.serve(bert_keras.load("runs/sst2"), port=8000)
"""

from bert_keras.playground.server import listen as listen
from bert_keras.playground.server import serve as serve
from bert_keras.playground.session import Session as Session
from bert_keras.playground.views import VIEWS as VIEWS
from bert_keras.playground.views import View as View

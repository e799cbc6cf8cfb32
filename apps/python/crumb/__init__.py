"""Low-bit language models on the CPU.

    model = crumb.Model("model.crumb")
    chat = model.chat(system="Be brief.")
    print(chat.say("Why is the sky blue?", temperature=0)["text"])
    for piece in crumb.stream(chat.say, "And at night?", max_tokens=64):
        print(piece, end="", flush=True)
"""
import queue
import threading

from ._crumb import Chat, Error, Model, __version__

__all__ = ["Chat", "Error", "Model", "stream", "__version__"]


def stream(call, text, **options):
    """Yields the pieces of `call` (a model's generate or a chat's say) as they come.

    Leaving the loop early stops the answer. What the call raises is raised here.
    """
    pieces, stopped, end = queue.Queue(), threading.Event(), object()

    def on_text(piece):
        pieces.put(piece)
        return stopped.is_set()

    def work():
        try:
            call(text, on_text=on_text, **options)
            pieces.put(end)
        except BaseException as error:  # to be raised by the reader
            pieces.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not end:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stopped.set()
        thread.join()

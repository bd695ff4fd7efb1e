"""Our search server, run in a thread."""

import threading
from contextlib import contextmanager

from hiexp_verl.search.server import listen, make_server


@contextmanager
def search_server(engine):
    """Serve `engine` on a free port; yield the address."""
    listener, server = listen("127.0.0.1", 0), make_server(engine)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join()

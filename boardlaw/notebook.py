"""What a live view shows in a notebook, and what it leaves in a page.

A widget is a picture drawn by a running notebook: stored in a page, it is blank. So a live view is
shown as a widget only where someone sits in front of it, and its picture goes along with it.
"""
import sys


def in_kernel() -> bool:
    """Whether this process runs a notebook's cells."""
    return _kernel() is not None


def attended() -> bool:
    """Whether someone sits in front of the notebook, who could answer a question.

    A program that runs a notebook (nbclient, nbval, and so Jupyter Book) says with each cell that
    it takes no input. JupyterLab, Colab and editors take it; a message that does not say, such as
    the click on a widget, comes from those.
    """
    kernel = _kernel()
    if kernel is None:
        return False
    message = getattr(kernel, 'get_parent', dict)() or {}
    return bool(message.get('content', {}).get('allow_stdin', True))


def mimebundle(text, html, make_widget, live=True) -> dict:
    """A view in every form that a notebook may choose from: what `_repr_mimebundle_` returns.

    Args:
        text: for terminals.
        html: a picture that needs nothing from outside, for the stored page.
        make_widget: gives the ipywidgets widget; called only where someone sits in front of the
            notebook. Where ipywidgets is missing, the picture says so.
        live: whether a widget is wanted at all.
    """
    bundle = {}
    if live and attended():
        try:
            bundle = make_widget()._repr_mimebundle_()
        except ImportError as error:
            html += f'<p>A picture only: {error}</p>'
    return {**bundle, 'text/plain': text, 'text/html': html}


def import_ipywidgets():
    """The module ipywidgets.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError('the live view needs ipywidgets, which is not installed here: '
                          'pip install ipywidgets, then restart the kernel') from error
    return ipywidgets


def _kernel():
    shell = getattr(sys.modules.get('IPython'), 'get_ipython', lambda: None)()
    return getattr(shell, 'kernel', None)

"""Sphinx extension: nothing that a page loads comes from elsewhere.

Jupyter Book always brings sphinx-thebe, which runs code on a remote server. The book does not use
it, its script comes from a CDN, and it logs an error on every page: its files are dropped here.
`tools/check_book.py` then proves of the finished pages that no address is left.

The search works on pages read from a disk, too. There a page may not fetch another, so that the
results come without excerpts; to ask for them would only log errors.
"""

THEBE = ('sphinx-thebe', 'THEBE_JS_URL')
NO_EXCERPTS = ("if (location.protocol === 'file:') "
               "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;")


def wanted(asset):
    """Whether a script or style sheet (Sphinx's `_JavaScript` or `_CascadingStyleSheet`) stays."""
    if str(asset.filename or '').startswith(('http:', 'https:', '//')):
        return False
    parts = (str(asset.filename or ''), asset.attributes.get('body') or '')
    return not any(name in part for name in THEBE for part in parts)


def drop(app, pagename, templatename, context, doctree):
    for kind in ('script_files', 'css_files'):
        context[kind] = [asset for asset in context.get(kind, []) if wanted(asset)]


def setup(app):
    # 900: after the extensions that add scripts page by page
    app.connect('html-page-context', drop, priority=900)
    app.add_js_file(None, body=NO_EXCERPTS, priority=900)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}

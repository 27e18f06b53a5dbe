"""The course as a site that needs no network: `make site` writes it to build/site.

`stage` lays the notebooks, the documents and the generated pages (reference, glossary, papers,
reading list) out in build/site-source, as Sphinx reads them; `docs/conf.py` is Sphinx's
configuration, and `extension` what it does here beyond its own.
"""

"""Rebuilding the pocket weights from the art (the ``pocket`` extra). Nothing at run time imports this."""

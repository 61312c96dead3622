"""Models and metrics -> the package folder."""

from tasks.stage import stage_task

package = stage_task("package", tags={"delivery"})

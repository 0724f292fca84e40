"""Render a level sequence for `unibench import --format unreal`. Runs inside Unreal Engine 5.2 or later, not here.

1. Enable the plug-ins Python Editor Script Plugin, Movie Render Queue and Movie Render Queue Additional Render Passes;
   set Project Settings > Rendering > "Velocity pass" to write velocity for all objects. Restart the editor.
2. Save the level that holds the scene. Then, in the editor's Output Log (choose "Python"):

       import sys; sys.path.append("/path/to/openuni/scripts")
       import unreal_movie_render_queue as mrq
       mrq.render("/Game/Levels/Street", "/Game/Sequences/Walk", "/data/unreal/walk", width=1280, height=720)

3. Here: `unibench calibrate /data/unreal/walk` (once, on a clip whose camera pans), then
   `unibench import --format unreal /data/unreal/walk --out data/walk`.

What it sets, and why: 32-bit post-process materials (half precision saturates at 65,504 cm and has 11 bits), no
anti-aliasing and one sample (a mean of two depths is the depth of nothing), no motion blur, velocity forced for every
object (else still objects have none and moving ones may have the camera's), object ids by actor, multilayer EXR.
"""

import unreal

_MATERIALS = "/MovieRenderPipeline/Materials/"
_VARIABLES = {
    "r.AntiAliasingMethod": 0.0,
    "r.MotionBlurQuality": 0.0,
    "r.DepthOfFieldQuality": 0.0,
    "r.ScreenPercentage": 100.0,
    "r.Velocity.ForceOutput": 1.0,
}


def render(level, sequence, folder, width=1280, height=720):
    """Queue one job and start it in the editor. Raises RuntimeError where this engine lacks a setting that matters."""
    subsystem = unreal.get_editor_subsystem(unreal.MoviePipelineQueueSubsystem)
    queue = subsystem.get_queue()
    job = queue.allocate_new_job(unreal.MoviePipelineExecutorJob)
    job.map, job.sequence = unreal.SoftObjectPath(level), unreal.SoftObjectPath(sequence)
    settings = job.get_configuration()

    output = settings.find_or_add_setting_by_class(unreal.MoviePipelineOutputSetting)
    output.output_directory = unreal.DirectoryPath(folder)
    output.file_name_format = "{sequence_name}.{frame_number}"
    output.output_resolution = unreal.IntPoint(width, height)

    exr = settings.find_or_add_setting_by_class(unreal.MoviePipelineImageSequenceOutput_EXR)
    exr.multilayer = True
    exr.compression = unreal.EXRCompressionFormat.ZIP

    sampling = settings.find_or_add_setting_by_class(unreal.MoviePipelineAntiAliasingSetting)
    sampling.spatial_sample_count = sampling.temporal_sample_count = 1
    sampling.override_anti_aliasing = True
    sampling.anti_aliasing_method = unreal.AntiAliasingMethod.AAM_NONE

    deferred = settings.find_or_add_setting_by_class(unreal.MoviePipelineDeferredPassBase)
    deferred.disable_multisample_effects = True
    _set_one_of(deferred, ("use32_bit_post_process_materials", "use_32_bit_post_process_materials"), True)
    deferred.additional_post_process_materials = [
        _pass("MovieRenderQueue_WorldDepth"),
        _pass("MovieRenderQueue_MotionVectors"),
    ]

    ids = settings.find_or_add_setting_by_class(unreal.MoviePipelineObjectIdRenderPass)
    ids.id_type = unreal.MoviePipelineObjectIdPassIdType.ACTOR

    variables = settings.find_or_add_setting_by_class(unreal.MoviePipelineConsoleVariableSetting)
    for name, value in _VARIABLES.items():
        variables.add_or_update_console_variable(name, value)
    subsystem.render_queue_with_executor(unreal.MoviePipelinePIEExecutor)


def _pass(name):
    material = unreal.MoviePipelinePostProcessPass()
    material.enabled = True
    material.material = unreal.SoftObjectPath(f"{_MATERIALS}{name}.{name}")
    return material


def _set_one_of(setting, names, value):
    """Set a property whose Python name differs between versions of the engine."""
    for name in names:
        if hasattr(setting, name):
            setting.set_editor_property(name, value)
            return
    raise RuntimeError(f"this engine has none of {', '.join(names)}; its depth would be in half precision")

-- The run of the latest session, for each job.
select distinct on (job) * from public.job_run order by job, session_date desc

-- Limits of dates and instants that every reader supports: not infinite, not before year 1, not after year 9999.
-- Without the limits, a single price with an infinite time stopped the tracker for everybody.

-- Existing rows that are out of range: prices with an impossible session are deleted, and so are live prices with an
-- impossible time. A close with an impossible time gets 16:00 in New York. The date of a position moves to the nearest
-- limit, which has the same meaning.
delete from public.price_live
where at not between '0001-01-02Z' and '9999-12-30Z' or session_date not between '0001-01-02' and '9999-12-30';
delete from public.price_eod where session_date not between '0001-01-02' and '9999-12-30';
update public.price_eod
set at = (session_date + time '16:00') at time zone 'America/New_York'
where at not between '0001-01-02Z' and '9999-12-30Z';
-- If several entries would have the same limit as their date, only the entry nearest to the limit is kept.
delete from public.position as entry
where valid_from not between '0001-01-02' and '9999-12-30'
    and exists (
        select from public.position as nearer
        where nearer.portfolio_id = entry.portfolio_id and nearer.symbol = entry.symbol
            and nearer.valid_from <> entry.valid_from
            and nearer.valid_from
                between symmetric entry.valid_from and least(greatest(entry.valid_from, '0001-01-02'), '9999-12-30')
    );
update public.position
set valid_from = least(greatest(valid_from, '0001-01-02'), '9999-12-30')
where valid_from not between '0001-01-02' and '9999-12-30';

alter table public.price_live
    add constraint finite check (
        at between '0001-01-02Z' and '9999-12-30Z' and session_date between '0001-01-02' and '9999-12-30'
    );
alter table public.price_eod
    add constraint finite check (
        at between '0001-01-02Z' and '9999-12-30Z' and session_date between '0001-01-02' and '9999-12-30'
    );
-- These constraints are not validated: only the service writes the tables, or the rows were just corrected. Checking
-- every row of the large tables would block their writers.
alter table public.position
    add constraint finite check (valid_from between '0001-01-02' and '9999-12-30') not valid;
alter table public.portfolio
    add constraint finite check (created_at between '0001-01-02Z' and '9999-12-30Z') not valid;
alter table public.portfolio_live
    add constraint finite check (
        as_of between '0001-01-02Z' and '9999-12-30Z'
        and session_date between '0001-01-02' and '9999-12-30'
        and oldest_price_at between '0001-01-02Z' and '9999-12-30Z'
        and value <> 'NaN' and day_open <> 'NaN' and day_high <> 'NaN' and day_low <> 'NaN'
    ) not valid;
alter table public.portfolio_intraday
    add constraint finite check (
        session_date between '0001-01-02' and '9999-12-30'
        and slot between '0001-01-02Z' and '9999-12-30Z'
        and value <> 'NaN' and priced_fraction between 0 and 1
    ) not valid;
alter table public.portfolio_history
    add constraint finite check (
        date between '0001-01-02' and '9999-12-30'
        and written_at between '0001-01-02Z' and '9999-12-30Z'
        and value <> 'NaN'
    ) not valid;
alter table public.portfolio_history_revision
    add constraint finite check (
        date between '0001-01-02' and '9999-12-30'
        and written_at between '0001-01-02Z' and '9999-12-30Z'
        and value <> 'NaN' and priced_fraction between 0 and 1
    ) not valid;
alter table public.lease_fence
    add constraint finite check (taken_at between '0001-01-02Z' and '9999-12-30Z') not valid;
alter table public.position_loading
    add constraint finite check (written_at between '0001-01-02Z' and '9999-12-30Z') not valid;
alter table public.job_run
    add constraint finite check (
        session_date between '0001-01-02' and '9999-12-30'
        and cursor_date between '0001-01-02' and '9999-12-30'
        and started_at between '0001-01-02Z' and '9999-12-30Z'
        and updated_at between '0001-01-02Z' and '9999-12-30Z'
        and finished_at between '0001-01-02Z' and '9999-12-30Z'
        and '0001-01-01'::date < all (skipped) and '9999-12-31'::date > all (skipped)
    ) not valid;
-- market_override has no such constraint: people write it by hand, and its reader limits each value and reports it.
